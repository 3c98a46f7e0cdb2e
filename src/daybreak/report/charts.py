"""Line charts, as data and as pictures."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, final
from xml.etree.ElementTree import Element

import numpy as np

from daybreak.errors import UserError
from daybreak.report.scales import Scale
from daybreak.report.svg import SERIES, inline_svg, placeholder
from daybreak.report.thin import Curve, Values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DASHES = ((), (5.0, 2.0), (1.5, 1.5))  # in line widths; none is a solid line
MOST_LOOKS = len(SERIES) * len(_DASHES)
_MOST_DOTS = 200
_FONT_SIZE = 13
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 10, 26, 44  # pixels around the plot


@final
@dataclass(frozen=True)
class Look:
    """What tells a line from others: a colour of the page, dashes, points on it."""

    colour: str
    dashes: tuple[float, ...] = ()
    dotted: bool = False

    @classmethod
    def of(cls, number: int, *, dotted: bool = False) -> "Look":
        """The look of the line with this number, from 0."""
        return cls(SERIES[number % len(SERIES)], _DASHES[number // len(SERIES) % len(_DASHES)], dotted)


@final
@dataclass(frozen=True)
class Line:
    label: str
    look: Look
    curve: Curve


@final
@dataclass(frozen=True)
class Rule:
    """Places on the x axis where something happened."""

    label: str
    x: Values
    colour: str
    dashes: tuple[float, ...]


@final
@dataclass(frozen=True)
class Chart:
    """Lines over one axis.

    Attributes:
        name: of letters and digits, unlike that of every other figure on the page.
        says: what somebody hears who does not see it.
        not_finite: places on the x axis of steps that have no number.
    """

    name: str
    says: str
    x: Scale
    y: Scale
    lines: tuple[Line, ...]
    rules: tuple[Rule, ...] = ()
    not_finite: Values | None = None

    @property
    def shows_dots(self) -> bool:
        """Whether single points can be told apart, and are few enough to be drawn as such."""
        return sum(len(line.curve.x) for line in self.lines if line.look.dotted) <= _MOST_DOTS


@final
@dataclass(frozen=True)
class Size:
    """Of a figure, in pixels, at the scale at which its text is 13 of them high."""

    width: int
    height: int


WIDE, LARGE, TALL, SMALL = Size(860, 380), Size(860, 570), Size(420, 380), Size(420, 270)


def draw(chart: Chart, size: Size) -> Element:
    """A chart as an <svg> element."""
    with canvas(size) as (figure, axes):
        for line in chart.lines:
            _draw_line(axes, line, chart)
        chart.y.apply(axes.yaxis)
        chart.x.apply(axes.xaxis)
        for rule in chart.rules:
            for x in _apart(rule.x, chart.x):
                axes.axvline(x, color=placeholder(rule.colour), linewidth=1, dashes=rule.dashes or (None, None))
        if chart.not_finite is not None and len(chart.not_finite):
            places = _apart(chart.not_finite, chart.x)
            axes.plot(
                places,
                np.full(len(places), 0.03),
                transform=axes.get_xaxis_transform(),
                color=placeholder("bad"),
                linestyle="none",
                marker="x",
                markersize=5,
            )
        label_axes(axes, size, chart.x.label, chart.y.label)
        return inline_svg(figure, f"{chart.name}-{size.width}x{size.height}", chart.says)


@contextmanager
def canvas(size: Size, left: int = _LEFT) -> Iterator[tuple["Figure", "Axes"]]:
    """An empty figure in the page's manner, whatever the person's own settings of matplotlib are.

    Raises:
        UserError: matplotlib is missing.
    """
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("figures need the package matplotlib: pip install 'daybreak[report]'") from None
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "daybreak",
        "font.size": _FONT_SIZE,
        "path.simplify": True,
        "axes.linewidth": 1.0,
    }
    with style.context(["default", settings]):
        figure = Figure(figsize=(size.width / 72, size.height / 72), dpi=72)
        figure.patch.set_visible(False)
        width, height = size.width - left - _RIGHT, size.height - _TOP - _BOTTOM
        axes = figure.add_axes((left / size.width, _BOTTOM / size.height, width / size.width, height / size.height))
        axes.patch.set_visible(False)
        axes.set_axisbelow(True)
        for side in ("left", "right", "top"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(placeholder("muted"))
        axes.tick_params(which="both", length=0, labelcolor=placeholder("muted"), pad=5)
        axes.grid(axis="y", color=placeholder("grid"), linewidth=1)
        yield figure, axes


def label_axes(axes: "Axes", size: Size, x: str, y: str) -> None:
    """Names of the axes: at the right below, and above on the left, where they need no turning of heads."""
    figure = axes.get_figure()
    assert figure is not None
    figure.text(1 - _RIGHT / size.width, 6 / size.height, x, ha="right", va="bottom", color=placeholder("muted"))
    figure.text(4 / size.width, 1 - 4 / size.height, y, ha="left", va="top", color=placeholder("muted"))


def _draw_line(axes: "Axes", line: Line, chart: Chart) -> None:
    curve, colour = line.curve, placeholder(line.look.colour)
    x = curve.x / chart.x.unit
    mean, low, high = (each / chart.y.unit for each in (curve.mean, curve.low, curve.high))
    if curve.has_band:
        axes.fill_between(x, low, high, color=colour, alpha=0.24 if len(chart.lines) < 3 else 0.15, linewidth=0)
    alone = len(x) == 1
    axes.plot(
        x,
        mean,
        color=colour,
        linewidth=1.6,
        dashes=line.look.dashes or (None, None),
        marker="o" if alone or (line.look.dotted and chart.shows_dots) else None,
        markersize=3.5,
    )


def _apart(x: Values, scale: Scale) -> list[float]:
    """Places in the axis's unit, one of those that would be drawn on top of one another."""
    low, high = scale.limits
    step = max((high - low) / 400, 1e-300)
    return sorted({round((place - low) / step) * step + low for place in (x / scale.unit).tolist()})
