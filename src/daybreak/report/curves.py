"""What runs measured, as charts: one line a run, or one run's lines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from daybreak.report import scales
from daybreak.report.figures import Chart, Line, Look, Rule
from daybreak.report.journal import Column
from daybreak.report.observed import Along, Observed
from daybreak.report.scales import Scale
from daybreak.report.svg import DEPTHS
from daybreak.report.thin import Curve

AXES: tuple[Along, ...] = ("steps", "tokens", "time", "flops")
_MOST_BANDS = 3  # lines whose bands can still be told apart; where bands are thinner, as over seeds, twice as many
_POINTS = {"large": 160, "small": 80, "later": 40}
_MOST_POINTS = 640  # of all lines of a figure together
_FEWEST_POINTS = 40
_LOSS = "(nats a token)"
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
    """Of one run: training and validation loss, and both over the later half. Of several lines: the training loss, its
    later half, and the validation loss."""
    runs = [run for group in groups for run in group.runs]
    x = x_scale(runs, along)
    training = _lines(groups, "loss", along, "large")
    validation = _validations(groups, along)
    if len(runs) == 1:
        training, validation = _named(training, "training loss", 0), _named(validation, "validation loss", 1)
    drawn = (*training, *validation) if len(runs) == 1 else training
    what = "loss" if len(runs) == 1 else "training loss"
    y = scales.logarithmic(f"{what} {_LOSS}", _extents(drawn))
    whole = Chart(f"loss-{along}", f"{what} against {x.label}", x, y, drawn, *_happened(runs, along))
    half = x.limits[1] * x.unit / 2
    later = _without_bands(_lines(groups, "loss", along, "later", since=half))
    if len(runs) == 1:
        later = (*_named(later, "training loss", 0), *_since(validation, half))
    y = scales.linear(f"{what}, later half {_LOSS}", _extents(later))
    closer = Chart(f"later-{along}", f"{what} over the later half, against {x.label}", x.since(0.5), y, later)
    if len(runs) == 1 or not validation:
        return whole, closer
    y = scales.logarithmic(f"validation loss {_LOSS}", _extents(validation))
    return whole, closer, Chart(f"validation-{along}", f"validation loss against {x.label}", x, y, validation)


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
    extents = _extents(lines)
    y = scales.logarithmic(label, extents) if logarithmic else scales.linear(label, extents, from_zero=True)
    return Chart(column.replace("_", "-"), f"{label} against steps", x_scale(runs, "steps"), y, lines)


def source_charts(runs: Sequence[Observed]) -> tuple[Chart, ...]:
    """Validation loss by source: of one run in one chart, of several in a chart for each source."""
    names = list(dict.fromkeys(name for run in runs for name in run.sources))
    if len(runs) == 1:
        lines = [_of_source(runs[0], name, name, index) for index, name in enumerate(names)]
        return (_measured_chart("sources", f"validation loss {_LOSS}", runs, lines),) if lines else ()
    return tuple(
        _measured_chart(
            f"source-{number}",
            f"{name}: validation loss {_LOSS}",
            runs,
            [_of_source(run, name, run.name, index) for index, run in enumerate(runs) if name in run.sources],
        )
        for number, name in enumerate(names, start=1)
    )


def task_charts(runs: Sequence[Observed], most: int) -> tuple[Chart, ...]:
    """A chart for each task and metric that was measured more than once, with the standard error as its band."""
    measured: dict[tuple[str, str], list[Line]] = {}
    for index, run in enumerate(runs):
        for (task, metric), points in task_points(run).items():
            steps, values, errors = (np.array(each, dtype=np.float64) for each in zip(*points, strict=True))
            curve = Curve(steps, values, values - errors, values + errors, 1)
            measured.setdefault((task, metric), []).append(Line(run.name, Look.of(index, dotted=True), curve))
    several = {key: lines for key, lines in measured.items() if max(len(line.curve.x) for line in lines) > 1}
    return tuple(
        Chart(
            f"task-{number}",
            f"{task}: {metric} against steps",
            x_scale(runs, "steps"),
            scales.linear(f"{task}: {metric}", _extents(lines)),
            tuple(lines),
        )
        for number, ((task, metric), lines) in enumerate(list(several.items())[:most], start=1)
    )


def task_points(run: Observed) -> dict[tuple[str, str], list[tuple[int, float, float]]]:
    """By task and metric: step, value and standard error (0 where there is none) of each measurement."""
    found: dict[tuple[str, str], list[tuple[int, float, float]]] = {}
    for record in run.journal.of_kind("tasks"):
        for task, metrics in record.get("results", {}).items():
            for metric, value in metrics.items():
                if metric.endswith("_stderr") or not isinstance(value, int | float):
                    continue
                error = metrics.get(f"{metric}_stderr")
                point = (record["step"], float(value), float(error) if isinstance(error, int | float) else 0.0)
                found.setdefault((task, metric), []).append(point)
    return found


def layer_chart(runs: Sequence[Observed], measure: str, label: str) -> Chart | None:
    """`update_size` or `largest_logit`: of one run a line for each layer, of several the last ones over the layers."""
    records = [[record for record in run.journal.of_kind("layers") if record.get(measure)] for run in runs]
    if not any(records):
        return None
    name = measure.replace("_", "-")
    if len(runs) == 1:
        lines = _layers_over_steps(records[0], measure)
        extents = _extents(lines)
        return Chart(
            name, f"{label} by layer against steps", x_scale(runs, "steps"), scales.logarithmic(label, extents), lines
        )
    last = [(index, found[-1][measure]) for index, found in enumerate(records) if found]
    layers = list(dict.fromkeys(layer for _, by_layer in last for layer in by_layer))
    lines = tuple(
        Line(
            runs[index].name,
            Look.of(index, dotted=True),
            _plain(
                np.arange(len(layers), dtype=np.float64),
                np.array([_number(by_layer.get(layer)) for layer in layers]),
            ),
        )
        for index, by_layer in last
    )
    y = scales.logarithmic(f"{label}, last", _extents(lines))
    return Chart(name, f"{label} over the layers", scales.of_names("layer", [_short(each) for each in layers]), y, lines)


def x_scale(runs: Sequence[Observed], along: Along) -> Scale:
    ends = [float(run.along(along)[-1]) for run in runs if len(run.journal)]
    return _SCALES[along](max(ends, default=1.0))


def together(charts: Sequence[Chart | None]) -> int:
    """The most steps that one point stands for."""
    return max((line.curve.together for chart in charts if chart for line in chart.lines), default=1)


def _lines(
    groups: Sequence[Group], column: str, along: Along, size: str, *, since: float = 0.0, unit: float = 1.0
) -> tuple[Line, ...]:
    """A column of the training records, a line for each group that has any from `since` on."""
    points = min(_POINTS[size], max(_FEWEST_POINTS, _MOST_POINTS // len(groups)))
    lines = []
    for index, group in enumerate(groups):
        curves = []
        for run in group.runs:
            x = run.along(along)
            chosen = x >= since
            if chosen.any():
                curves.append(Curve.of(x[chosen], run.journal.columns[column][chosen] / unit, points=points))
        if curves:
            curve = curves[0] if len(group.runs) == 1 else Curve.over(curves, points=points)
            lines.append(Line(group.name, Look.of(index), curve))
    most = _MOST_BANDS * (2 if any(len(group.runs) > 1 for group in groups) else 1)
    return tuple(lines) if len(groups) <= most else _without_bands(lines)


def _validations(groups: Sequence[Group], along: Along) -> tuple[Line, ...]:
    lines = []
    for index, group in enumerate(groups):
        curves = []
        for run in group.runs:
            steps, losses = _measured(run, lambda record: record.get("loss"))
            if len(steps):
                curves.append(_plain(run.at(steps, along), losses))
        if curves:
            most = max(len(curve.x) for curve in curves)
            curve = curves[0] if len(group.runs) == 1 else Curve.over(curves, points=most)
            lines.append(Line(group.name, Look.of(index, dotted=True), curve))
    return tuple(lines)


def _of_source(run: Observed, source: str, label: str, index: int) -> Line:
    steps, losses = _measured(run, lambda record: record.get("sources", {}).get(source))
    return Line(label, Look.of(index, dotted=True), _plain(steps, losses))


def _measured(run: Observed, value: Callable[[dict[str, object]], object]) -> tuple[Column, Column]:
    steps = np.array([record["step"] for record in run.validations], dtype=np.float64)
    return steps, np.array([_number(value(record)) for record in run.validations])


def _measured_chart(name: str, label: str, runs: Sequence[Observed], lines: Sequence[Line]) -> Chart:
    y = scales.logarithmic(label, _extents(lines))
    return Chart(name, f"{label} against steps", x_scale(runs, "steps"), y, tuple(lines))


def _layers_over_steps(records: Sequence[dict[str, object]], measure: str) -> tuple[Line, ...]:
    """Blocks take one of a few colours by their depth, which the legend names once; what is no block is dashed."""
    layers = list(dict.fromkeys(layer for record in records for layer in _table(record, measure)))
    blocks = [layer for layer in layers if layer.startswith("blocks.")]
    depths = {layer: round(at / max(1, len(blocks) - 1) * (len(DEPTHS) - 1)) for at, layer in enumerate(blocks)}
    steps = np.array([record["step"] for record in records], dtype=np.float64)
    lines = []
    for layer in layers:
        values = np.array([_number(_table(record, measure).get(layer)) for record in records])
        curve = Curve.of(steps, values, points=_POINTS["small"]).without_band
        if layer in depths:
            alike = [_short(other) for other, depth in depths.items() if depth == depths[layer]]
            label = f"block {alike[0]}" if len(alike) == 1 else f"blocks {alike[0]}–{alike[-1]}"
            lines.append(Line(label, Look(DEPTHS[depths[layer]]), curve))
        else:
            lines.append(Line(layer, Look("ink", (5.0, 2.0) if layer == "embedding" else (1.5, 1.5)), curve))
    return tuple(lines)


def _happened(runs: Sequence[Observed], along: Along) -> tuple[tuple[Rule, ...], Column | None]:
    """Of one run: what happened to it, and the steps that the guard refused."""
    if len(runs) > 1:
        return (), None
    (run,) = runs
    rules = []
    for kind, (label, colour, dashes) in _RULES.items():
        steps = np.array([mark.step for mark in run.journal.marks if mark.kind == kind], dtype=np.float64)
        if len(steps):
            rules.append(Rule(label, run.at(steps, along), colour, dashes))
    without = set(run.journal.skipped_steps) | set(run.journal.steps[~np.isfinite(run.journal.columns["loss"])].tolist())
    return tuple(rules), run.at(np.array(sorted(without), dtype=np.float64), along)


def _named(lines: Sequence[Line], label: str, number: int) -> tuple[Line, ...]:
    return tuple(Line(label, Look.of(number, dotted=line.look.dotted), line.curve) for line in lines)


def _since(lines: Sequence[Line], x: float) -> tuple[Line, ...]:
    return tuple(replace(line, curve=line.curve.since(x)) for line in lines)


def _without_bands(lines: Sequence[Line]) -> tuple[Line, ...]:
    return tuple(replace(line, curve=line.curve.without_band) for line in lines)


def _plain(x: Column, y: Column) -> Curve:
    return Curve(x, y, y, y, 1)


def _extents(lines: Sequence[Line]) -> list[Column]:
    return [values for line in lines for values in (line.curve.low, line.curve.high)]


def _table(record: dict[str, object], key: str) -> dict[str, object]:
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _short(layer: str) -> str:
    return layer.removeprefix("blocks.")


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else np.nan
