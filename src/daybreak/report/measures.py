"""What is measured now and then, as charts: sources, benchmarks, layers."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from daybreak.evaluate.results import shown, spoken
from daybreak.finite import or_nan
from daybreak.report import scales
from daybreak.report.charts import Chart, Line, Look
from daybreak.report.curves import LOSS, extents, measured, plain, x_scale
from daybreak.report.observed import Observed
from daybreak.report.svg import DEPTHS
from daybreak.report.thin import Curve

_POINTS = 80
_LONGEST_ON_AN_AXIS = 4
_LEAST_PERCENT = 5.0  # that an axis of shares reaches
_OTHER_DASHES = ((5.0, 2.0), (1.5, 1.5), (6.0, 1.5, 1.5, 1.5))


def source_charts(runs: Sequence[Observed], most: int) -> tuple[Chart, ...]:
    """Validation loss by source: of one run in one chart, of several in a chart for each of the first sources."""
    names = list(dict.fromkeys(name for run in runs for name in run.sources))
    if len(runs) == 1:
        lines = [_of_source(runs[0], name, name, index) for index, name in enumerate(names)]
        return (_source_chart("sources", "by source", runs, lines),) if lines else ()
    return tuple(
        _source_chart(
            f"source-{number}",
            f"on {name}",
            runs,
            [_of_source(run, name, run.name, index) for index, run in enumerate(runs) if name in run.sources],
        )
        for number, name in enumerate(names[:most], start=1)
    )


def task_charts(runs: Sequence[Observed], most: int) -> tuple[Chart, ...]:
    """A chart for each task and metric that was measured more than once, with the standard error as its band."""
    measured: dict[tuple[str, str], list[Line]] = {}
    for index, run in enumerate(runs):
        for (task, metric), points in task_points(run).items():
            steps, values, errors = (np.array(each, dtype=np.float64) for each in zip(*points, strict=True))
            if is_share(metric):
                values, errors = 100 * values, 100 * errors
            curve = Curve(steps, values, values - errors, values + errors, 1)
            measured.setdefault((task, metric), []).append(Line(run.name, Look.of(index, dotted=True), curve))
    several = {key: lines for key, lines in measured.items() if max(len(line.curve.x) for line in lines) > 1}
    return tuple(
        _task_chart(f"task-{number}", task, metric, runs, lines)
        for number, ((task, metric), lines) in enumerate(list(several.items())[:most], start=1)
    )


def is_share(metric: str) -> bool:
    """Whether a metric is read in percent, as the command line shows it."""
    return shown(metric, 1.0).endswith("%")


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
    axis = scales.linear if measure == "largest_logit" else scales.logarithmic  # logits may be below zero
    if len(runs) == 1:
        lines = _layers_over_steps(records[0], measure)
        y = axis(label, extents(lines))
        return Chart(name, f"{label} by layer against steps", x_scale(runs, "steps"), y, lines)
    last = [(index, found[-1][measure]) for index, found in enumerate(records) if found]
    layers = list(dict.fromkeys(layer for _, by_layer in last for layer in by_layer))
    lines = tuple(
        Line(
            runs[index].name,
            Look.of(index, dotted=True),
            plain(
                np.arange(len(layers), dtype=np.float64),
                np.array([or_nan(by_layer.get(layer)) for layer in layers]),
            ),
        )
        for index, by_layer in last
    )
    y = axis(f"{label}, last", extents(lines))
    return Chart(
        name, f"{label} over the layers", scales.of_names("layer", [_shorter(each) for each in layers]), y, lines
    )


def _task_chart(name: str, task: str, metric: str, runs: Sequence[Observed], lines: Sequence[Line]) -> Chart:
    label = f"{task}: {spoken(metric)}"
    if is_share(metric):
        y = scales.linear(f"{label} (%)", [*extents(lines), np.array([_LEAST_PERCENT])], from_zero=True)
    elif "perplexity" in metric:
        # A perplexity is positive, however large its standard error is.
        y = scales.logarithmic(label, extents(_cut_below(lines, 0.5 * _lowest(lines))))
        lines = _cut_below(lines, y.limits[0] * y.unit)
    else:
        y = scales.linear(label, extents(lines))
    return Chart(name, f"{spoken(metric)} on {task} against steps", x_scale(runs, "steps"), y, tuple(lines))


def _lowest(lines: Sequence[Line]) -> float:
    """Of the values above zero; infinite where there is none."""
    values = np.concatenate([line.curve.mean for line in lines])
    return float(values[values > 0].min(initial=np.inf))


def _cut_below(lines: Sequence[Line], low: float) -> list[Line]:
    """With bands that reach no lower."""
    return [replace(line, curve=replace(line.curve, low=np.maximum(line.curve.low, low))) for line in lines]


def _of_source(run: Observed, source: str, label: str, index: int) -> Line:
    steps, losses = measured(run, lambda record: record.get("sources", {}).get(source))
    return Line(label, Look.of(index, dotted=True), Curve.of(steps, losses, points=_POINTS))


def _source_chart(name: str, where: str, runs: Sequence[Observed], lines: Sequence[Line]) -> Chart:
    y = scales.logarithmic(f"validation loss {where} {LOSS}", extents(lines))
    return Chart(name, f"validation loss {where} against steps", x_scale(runs, "steps"), y, tuple(lines))


def _layers_over_steps(records: Sequence[dict[str, object]], measure: str) -> tuple[Line, ...]:
    """Blocks take one of a few colours by their depth, which the legend names once; what is no block is dashed."""
    layers = list(dict.fromkeys(layer for record in records for layer in _table(record, measure)))
    blocks = [layer for layer in layers if layer.startswith("blocks.")]
    depths = {layer: round(at / max(1, len(blocks) - 1) * (len(DEPTHS) - 1)) for at, layer in enumerate(blocks)}
    others = sorted(set(layers) - set(blocks))
    steps = np.array([record["step"] for record in records], dtype=np.float64)
    lines = []
    for layer in layers:
        values = np.array([or_nan(_table(record, measure).get(layer)) for record in records])
        curve = Curve.of(steps, values, points=_POINTS).without_band
        if layer in depths:
            alike = [_short(other) for other, depth in depths.items() if depth == depths[layer]]
            label = f"block {alike[0]}" if len(alike) == 1 else f"blocks {alike[0]}–{alike[-1]}"
            lines.append(Line(label, Look(DEPTHS[depths[layer]]), curve))
        else:
            dashes = _OTHER_DASHES[others.index(layer) % len(_OTHER_DASHES)]
            lines.append(Line(layer, Look("ink", dashes), curve))
    return tuple(lines)


def _table(record: dict[str, object], key: str) -> dict[str, object]:
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _short(layer: str) -> str:
    return layer.removeprefix("blocks.")


def _shorter(layer: str) -> str:
    """For an axis: `emb.`"""
    short = _short(layer)
    return short if len(short) <= _LONGEST_ON_AN_AXIS else f"{short[: _LONGEST_ON_AN_AXIS - 1]}."
