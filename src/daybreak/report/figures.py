"""Figures of a page: charts as pictures for wide and narrow screens, with a legend and a caption."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from daybreak.report.charts import LARGE, SMALL, TALL, WIDE, Chart, Look, draw
from daybreak.report.html import element, figure


def small_figure(chart: Chart, caption: str, *, with_legend: bool = False) -> Element:
    """One chart, with a legend of its own where none above speaks for it."""
    parts = [legend([chart])] if with_legend else []
    return figure(caption, *parts, draw(chart, SMALL))


def switched_figure(name: str, choices: Sequence[tuple[str, Sequence[Chart]]], caption: str) -> Element:
    """Charts of which one choice is seen at a time: the first of it large, the others beside it.

    Args:
        choices: what to choose, and its charts.
    """
    switches, panels = [], []
    for number, (label, charts) in enumerate(choices):
        switch = element("input", type="radio", name=name, id=f"{name}-{number}")
        if number == 0:
            switch.set("checked", "")
        switches += [switch, element("label", label, for_=f"{name}-{number}")]
        first, *others = charts
        beside = SMALL if len(others) > 1 else TALL
        large = element("div", draw(first, LARGE if len(others) > 1 else WIDE), class_="wide")
        narrow = element("div", draw(first, TALL), class_="narrow")
        rest = [element("div", draw(each, beside)) for each in others]
        panels.append(element("div", large, narrow, *rest, class_="panel"))
    everything = [chart for _, charts in choices for chart in charts]
    words = element("legend", "against")
    return figure(caption, legend(everything), element("fieldset", words, *switches, *panels), class_="switched")


def legend(charts: Sequence[Chart]) -> Element:
    """What the lines stand for, each said once."""
    entries: dict[str, Element] = {}
    for chart in charts:
        for line in chart.lines:
            entries.setdefault(line.label, _sample(line.look, dotted=line.look.dotted and chart.shows_dots))
        for rule in chart.rules:
            entries.setdefault(rule.label, _rule(rule.colour, rule.dashes))
        if chart.not_finite is not None and len(chart.not_finite):
            entries.setdefault("not finite, skipped", _cross())
    items = [element("li", sample, label) for label, sample in entries.items()]
    return element("ul", *items, class_="legend", aria_label="Legend")


def _sample(look: Look, *, dotted: bool) -> Element:
    line = _stroke("line", look.colour, x1="0", y1="6", x2="28", y2="6", stroke_width="2.5")
    _dash(line, look.dashes, 2.0)
    dot = [element("circle", cx="14", cy="6", r="3.5", style=f"fill: var(--{look.colour})")] if dotted else []
    return _little_picture(line, *dot)


def _rule(colour: str, dashes: tuple[float, ...]) -> Element:
    line = _stroke("line", colour, x1="14", y1="0", x2="14", y2="12", stroke_width="1.5")
    _dash(line, dashes, 1.0)
    return _little_picture(line)


def _cross() -> Element:
    return _little_picture(_stroke("path", "bad", d="M11 3L17 9M17 3L11 9", stroke_width="1.5"))


def _stroke(tag: str, colour: str, **attributes: str) -> Element:
    return element(tag, style=f"stroke: var(--{colour})", **attributes)


def _dash(line: Element, dashes: tuple[float, ...], width: float) -> None:
    if dashes:
        line.set("stroke-dasharray", " ".join(f"{width * dash:g}" for dash in dashes))


def _little_picture(*shapes: Element) -> Element:
    return element("svg", *shapes, viewBox="0 0 28 12", width="28", height="12", aria_hidden="true")
