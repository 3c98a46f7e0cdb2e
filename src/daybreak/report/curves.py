"""What runs measured, as charts: one line a run, or one run's lines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import numpy as np

from daybreak.finite import or_nan
from daybreak.report import scales
from daybreak.report.charts import Chart, Line, Look, Rule
from daybreak.report.observed import Along, Observed
from daybreak.report.scales import Scale
from daybreak.report.thin import Curve, Values

AXES: dict[Along, str] = {"steps": "steps", "tokens": "tokens", "time": "time", "flops": "FLOPs"}
_MOST_BANDS = 3  # lines whose bands can still be told apart; where bands are thinner, as over seeds, twice as many
Room = Literal["large", "small"]  # that a line has on the page
_POINTS: dict[Room, int] = {"large": 160, "small": 80}
_MOST_POINTS = 640  # of all lines of a figure together
_FEWEST_POINTS = 40
_MUCH_LONGER = 4.0
_SEEN_OF_THE_SHORTEST = 30.0
LOSS = "(nats a token)"
FLOPS_NOTE = (
    "FLOPs are counted by nanoGPT's convention (PaLM, appendix B): 6 N + 12 layers × width × row length a token, N "
    "being the parameters that are multiplied."
)
_SCALES: dict[Along, Callable[[float], Scale]] = {
    "steps": scales.of_steps,
    "tokens": scales.of_tokens,
    "time": scales.of_time,
    "flops": scales.of_flops,
}
_RULES = {
    "sitting": ("another sitting begins", "muted", (2.0, 3.0)),
    "changes": ("other settings from here on", "series-4", (5.0, 2.0)),
    "extension": ("extended", "series-3", (5.0, 2.0)),
    "rollback": ("spike: rolled back", "bad", (4.0, 2.0)),
    "micro_batch": ("out of memory: smaller micro-batch", "series-5", (1.5, 1.5)),
}


@final
@dataclass(frozen=True)
class Group:
    """Runs that are one line: a run by itself, or a variant's at its seeds."""

    name: str
    runs: tuple[Observed, ...]


def alone(runs: Sequence[Observed]) -> list[Group]:
    """Each run a line."""
    return [Group(run.name, (run,)) for run in runs]


def loss_charts(groups: Sequence[Group], along: Along) -> tuple[Chart, ...]:
    """Of one run its training and validation loss, and both over the later half; of several each by itself."""
    runs = [run for group in groups for run in group.runs]
    x = x_scale(runs, along)
    training = _lines(groups, "loss", along, "large")
    validation = _validations(groups, along)
    if len(runs) == 1:
        training, validation = _named(training, "training loss", 0), _named(validation, "validation loss", 1)
    drawn = (*training, *validation) if len(runs) == 1 else training
    what = "loss" if len(runs) == 1 else "training loss"
    y = scales.logarithmic(f"{what} {LOSS}", extents(drawn))
    whole = Chart(f"loss-{along}", f"{what} against {x.label}", x, y, drawn, *_happened(runs, along))
    charts = [whole]
    half = x.limits[1] * x.unit / 2
    later = (*_without_bands(_since(training, half)), *(_since(validation, half) if len(runs) == 1 else ()))
    if later and not x.logarithmic:
        y = scales.linear(f"{what}, later half {LOSS}", extents(later))
        charts.append(Chart(f"later-{along}", f"{what} over the later half, against {x.label}", x.later_half, y, later))
    if len(runs) > 1 and max((len(line.curve.x) for line in validation), default=0) > 1:
        y = scales.logarithmic(f"validation loss {LOSS}", extents(validation))
        charts.append(Chart(f"validation-{along}", f"validation loss against {x.label}", x, y, validation))
    return tuple(charts)


def column_chart(
    runs: Sequence[Observed], column: str, label: str, *, logarithmic: bool = False, unit: float = 1.0
) -> Chart | None:
    """A column of the training records against steps; None where no run has a number in it.

    Args:
        unit: what values are divided by before.
    """
    lines = _lines(alone(runs), column, "steps", "small", unit=unit)
    if not any(np.isfinite(line.curve.mean).any() for line in lines):
        return None
    drawn = extents(lines)
    y = scales.logarithmic(label, drawn) if logarithmic else scales.linear(label, drawn, from_zero=True)
    return Chart(column.replace("_", "-"), f"{label} against steps", x_scale(runs, "steps"), y, lines)


def x_scale(runs: Sequence[Observed], along: Along) -> Scale:
    """From zero on; where one run is much shorter than another, logarithmic, so that both can be seen."""
    ends = [float(run.along(along)[-1]) for run in runs if len(run.journal)]
    scale = _SCALES[along](max(ends, default=1.0))
    if not ends or max(ends) < _MUCH_LONGER * min(ends):
        return scale
    return scale.logarithmic_from(min(ends) / _SEEN_OF_THE_SHORTEST)


def together(charts: Sequence[Chart | None]) -> int:
    """The most steps that one point stands for."""
    return max((line.curve.together for chart in charts if chart for line in chart.lines), default=1)


def _lines(groups: Sequence[Group], column: str, along: Along, room: Room, *, unit: float = 1.0) -> tuple[Line, ...]:
    """A column of the training records, a line for each group that has any."""
    points = _points(room, len(groups))
    lines = []
    for index, group in enumerate(groups):
        curves = []
        for run in group.runs:
            x = run.along(along)
            if len(x):
                curves.append(Curve.of(x, run.journal.columns[column] / unit, points=points))
        if curves:
            curve = curves[0] if len(group.runs) == 1 else Curve.over(curves, points=points)
            lines.append(Line(group.name, Look.of(index), curve))
    most = _MOST_BANDS * (2 if any(len(group.runs) > 1 for group in groups) else 1)
    return tuple(lines) if len(groups) <= most else _without_bands(lines)


def _points(room: Room, lines: int) -> int:
    return min(_POINTS[room], max(_FEWEST_POINTS, _MOST_POINTS // lines))


def _validations(groups: Sequence[Group], along: Along) -> tuple[Line, ...]:
    points = _points("large", len(groups))
    lines = []
    for index, group in enumerate(groups):
        curves = []
        for run in group.runs:
            steps, losses = measured(run, lambda record: record.get("loss"))
            if len(steps):
                curves.append(Curve.of(run.at(steps, along), losses, points=points))
        if curves:
            most = max(len(curve.x) for curve in curves)
            curve = curves[0] if len(group.runs) == 1 else Curve.over(curves, points=most)
            lines.append(Line(group.name, Look.of(index, dotted=True), curve))
    return tuple(lines)


def measured(run: Observed, value: Callable[[dict[str, Any]], object]) -> tuple[Values, Values]:
    """Steps of a run's validations, and a value of the record of each."""
    steps = np.array([record["step"] for record in run.validations], dtype=np.float64)
    return steps, np.array([or_nan(value(record)) for record in run.validations])


def _happened(runs: Sequence[Observed], along: Along) -> tuple[tuple[Rule, ...], Values | None]:
    """Of one run: what happened to it, and the steps that the guard refused."""
    if len(runs) > 1:
        return (), None
    (run,) = runs
    rules = []
    for kind, (label, colour, dashes) in _RULES.items():
        steps = np.array([mark.step for mark in run.journal.marks if mark.kind == kind], dtype=np.float64)
        if len(steps):
            rules.append(Rule(label, run.at(steps, along), colour, dashes))
    without = set(run.journal.skipped_steps) | set(
        run.journal.steps[~np.isfinite(run.journal.columns["loss"])].tolist()
    )
    return tuple(rules), run.at(np.array(sorted(without), dtype=np.float64), along)


def _named(lines: Sequence[Line], label: str, number: int) -> tuple[Line, ...]:
    return tuple(Line(label, Look.of(number, dotted=line.look.dotted), line.curve) for line in lines)


def _since(lines: Sequence[Line], x: float) -> tuple[Line, ...]:
    """Those that have a later part, in the points that they have in the whole."""
    later = (replace(line, curve=line.curve.since(x)) for line in lines)
    return tuple(line for line in later if len(line.curve.x))


def _without_bands(lines: Sequence[Line]) -> tuple[Line, ...]:
    return tuple(replace(line, curve=line.curve.without_band) for line in lines)


def plain(x: Values, y: Values) -> Curve:
    """All points as they are, without a band."""
    return Curve(x, y, y, y, 1)


def extents(lines: Sequence[Line]) -> list[Values]:
    """What an axis must reach to show the lines and their bands."""
    return [values for line in lines for values in (line.curve.low, line.curve.high)]
