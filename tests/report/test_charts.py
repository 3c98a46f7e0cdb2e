"""Pictures: the same bytes each time, no colour or name of their own, readable by both kinds of readers."""

import re
import sys
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from daybreak.errors import UserError
from daybreak.report import scales
from daybreak.report.charts import SMALL, TALL, Chart, Line, Look, Rule, draw
from daybreak.report.forest import Row, draw_forest
from daybreak.report.thin import Curve


def chart(name: str = "loss") -> Chart:
    x, y = np.arange(1.0, 501.0), 2.0 + np.random.default_rng(0).random(500)
    curve = Curve.of(x, y, points=50)
    return Chart(
        name,
        "loss against steps",
        scales.of_steps(500.0),
        scales.logarithmic("loss", [curve.low, curve.high]),
        (Line("a", Look.of(0), curve), Line("b", Look.of(1, dotted=True), Curve(x[:3], y[:3], y[:3], y[:3], 1))),
        (Rule("sitting", np.array([100.0]), "muted", (2.0, 3.0)),),
        np.array([7.0, 8.0]),
    )


def text(name: str = "loss") -> str:
    return ElementTree.tostring(draw(chart(name), SMALL), encoding="unicode")


def test_the_same_chart_is_the_same_picture_whatever_the_persons_settings() -> None:
    first = text()
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "axes.facecolor": "red", "text.usetex": False}):
        assert text() == first


def test_a_picture_takes_its_colours_from_the_page() -> None:
    drawn = text()
    assert not re.search(r"#[0-9a-f]{6}|rgb|font-family", drawn)
    assert "var(--series-1)" in drawn
    assert "var(--bad)" in drawn


def test_pictures_on_one_page_share_no_id() -> None:
    pictures = [draw(chart(name), size) for name in ("one", "two") for size in (SMALL, TALL)]
    ids = [element.get("id") for picture in pictures for element in picture.iter() if element.get("id")]
    assert ids
    assert len(ids) == len(set(ids))
    for picture in pictures:
        own = {element.get("id") for element in picture.iter()}
        used = set(re.findall(r"(?:url\(|href=\")#([\w-]+)", ElementTree.tostring(picture, encoding="unicode")))
        assert used <= own


def test_a_picture_says_what_it_shows() -> None:
    picture = draw(chart(), SMALL)
    assert (picture.get("role"), picture.get("aria-label")) == ("img", "loss against steps")
    words = [element.text for element in picture.iter("text")]
    assert "steps" in words
    assert "loss" in words


def test_a_line_goes_through_its_values() -> None:
    """Where the pixels of a straight line are is known."""
    x = np.array([0.0, 100.0])
    line = Line("a", Look.of(0), Curve(x, x, x, x, 1))
    y = scales.linear("y", [x])
    picture = draw(Chart("line", "", scales.of_steps(100.0), y, (line,)), SMALL)
    path = next(each for each in picture.iter("path") if "--series-1" in (each.get("style") or ""))
    (x0, y0), (x1, y1) = (map(float, pair.split()) for pair in re.findall(r"[\d.]+ [\d.]+", path.get("d") or ""))
    left, right, top, bottom = 54.0, 420.0 - 10.0, 26.0, 270.0 - 44.0
    low, high = y.limits
    assert x0 == pytest.approx(left, abs=0.1)
    assert x1 == pytest.approx(left + (right - left) / 1.015, abs=0.1)
    assert y0 == pytest.approx(bottom - (0 - low) / (high - low) * (bottom - top), abs=0.1)
    assert y1 == pytest.approx(bottom - (100 - low) / (high - low) * (bottom - top), abs=0.1)


def test_a_forest_plot_says_its_figures_and_draws_every_seed() -> None:
    rows = [
        Row("wide", -0.05, (-9.0, 9.0), (-0.06, -0.04), "not shown", "muted"),
        Row("sure", 0.02, (0.01, 0.03), (0.015, 0.025, 0.02), "hurts", "bad"),
        Row("once", 0.01, None, (0.01,), "not shown", "muted"),
    ]
    picture = draw_forest(rows, "forest", "difference", 420)
    label = picture.get("aria-label") or ""
    assert "wide: −0.0500, 95 % interval −9.0000 to +9.0000, not shown" in label
    words = [element.text for element in picture.iter("text")]
    assert {"wide", "sure", "once", "+0.0200, hurts"} <= set(words)
    drawn = ElementTree.tostring(picture, encoding="unicode")
    assert drawn.count("fill: var(--surface)") == 6 + len(rows)  # rings, and behind the words of each row


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'daybreak\[report\]'"):
        draw(chart(), SMALL)
