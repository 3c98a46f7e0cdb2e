"""A forest plot: differences with their intervals, every seed as a dot, beside the line of no difference."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final
from xml.etree.ElementTree import Element

import numpy as np

from daybreak.report import scales
from daybreak.report.charts import Size, canvas, label_axes
from daybreak.report.scales import Scale
from daybreak.report.svg import inline_svg, placeholder
from daybreak.report.words import signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW, _AROUND = 46, 70  # pixels
_LABEL, _LINE = 0.24, -0.14  # where they stand in a row, of its height
_MOST_BEYOND = 1.5  # of the range of all seeds, that an interval is drawn beyond it


@final
@dataclass(frozen=True)
class Row:
    """One difference.

    Attributes:
        by_seed: the differences that it is the mean of.
        interval: None with one seed.
        colour: of the page.
    """

    name: str
    mean: float
    interval: tuple[float, float] | None
    by_seed: tuple[float, ...]
    verdict: str
    colour: str


def draw_forest(rows: Sequence[Row], name: str, label: str, width: int) -> Element:
    """Rows from above in their order."""
    size = Size(width, _AROUND + _ROW * len(rows))
    scale = _scale(rows, label)
    with canvas(size, left=10) as (figure, axes):
        axes.grid(axis="x", color=placeholder("grid"), linewidth=1)
        axes.grid(axis="y", visible=False)
        for index, row in enumerate(rows):
            _draw_row(axes, row, -float(index), scale)
        axes.set_yticks([])
        axes.set_ylim(-len(rows) + 0.5, 0.5)
        scale.apply(axes.xaxis)
        axes.axvline(0, color=placeholder("ink"), linewidth=1)
        label_axes(axes, size, scale.label, "")
        return inline_svg(figure, f"{name}-{width}", "; ".join(map(_said, rows)))


def _draw_row(axes: "Axes", row: Row, y: float, scale: Scale) -> None:
    low, high = scale.limits
    colour, line = placeholder(row.colour), y + _LINE
    mean = signed(row.mean, 4)
    axes.text(0.0, y + _LABEL, row.name, transform=axes.get_yaxis_transform(), va="center", color=placeholder("ink"))
    axes.text(
        1.0, y + _LABEL, f"{mean}, {row.verdict}", transform=axes.get_yaxis_transform(), va="center", ha="right",
        color=colour, bbox={"facecolor": placeholder("surface"), "edgecolor": "none", "pad": 1},
    )  # fmt: skip
    if row.interval is not None:
        ends = [end / scale.unit for end in row.interval]
        axes.plot(np.clip(ends, low, high), [line, line], color=colour, linewidth=2.5)
        for end, marker in zip(ends, ("<", ">"), strict=True):
            beyond = not low <= end <= high
            place = float(np.clip(end, low, high))
            axes.plot([place], [line], marker=marker if beyond else "|", color=colour, markersize=8, clip_on=False)
    for seed, difference in enumerate(row.by_seed):
        height = line + 0.07 * (-1) ** seed
        axes.plot(
            [difference / scale.unit], [height], marker="o", markersize=5, markeredgewidth=1,
            markerfacecolor=placeholder("surface"), markeredgecolor=colour,
        )  # fmt: skip
    axes.plot([row.mean / scale.unit], [line], marker="D", markersize=7, color=colour)


def _scale(rows: Sequence[Row], label: str) -> Scale:
    seeds = [each for row in rows for each in (*row.by_seed, row.mean) if np.isfinite(each)] or [0.0]
    low, high = min(0.0, *seeds), max(0.0, *seeds)
    beyond = _MOST_BEYOND * (high - low)
    ends = [end for row in rows if row.interval for end in row.interval]
    ends = [float(np.clip(end, low - beyond, high + beyond)) for end in ends]
    return scales.linear(label, [np.array([low, high, *ends])])


def _said(row: Row) -> str:
    """What somebody hears who does not see it."""
    mean, interval = signed(row.mean, 4), ""
    if row.interval is not None:
        low, high = (signed(end, 4) for end in row.interval)
        interval = f", 95 % interval {low} to {high}"
    return f"{row.name}: {mean}{interval}, {row.verdict}"
