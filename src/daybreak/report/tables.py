"""Numbers that people compare: tables of runs."""

import math
from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element

import numpy as np

from daybreak.duration import human_dollars, human_seconds
from daybreak.evaluate.results import shown, spoken
from daybreak.finite import or_nan
from daybreak.report.html import Content, table
from daybreak.report.measures import is_share, task_points
from daybreak.report.observed import Observed
from daybreak.report.places import without_folders
from daybreak.report.words import NOTHING, number, percent, scientific, significant

_MOST_EVENTS = 60
_LARGE = 1e6  # from here on a figure of a benchmark is a power of ten


def outcome(runs: Sequence[Observed]) -> Element:
    """What the runs came to."""
    figures: dict[str, list[Content]] = {
        "validation loss (nats a token)": [number(run.final_loss, 4) for run in runs],
        "bits a byte": [number(run.bits_per_byte, 4) for run in runs],
        "perplexity": [_perplexity(run.final_loss) for run in runs],
        f"training loss, {_over_last(runs)}": [_mean(run, alone=len(runs) == 1) for run in runs],
        "training loss, last step": [number(run.last("loss"), 4) for run in runs],
        "steps": [number(run.last("step")) for run in runs],
        "tokens": [number(run.last("tokens")) for run in runs],
        "training FLOPs": [_flops(run) for run in runs],
        "time": [_time(run.seconds) for run in runs],
        "cost": [NOTHING if run.dollars is None else human_dollars(run.dollars) for run in runs],
        "parameters": [number(run.parameters) for run in runs],
        "budget": [f"{run.recipe.budget}, {state(run)}" for run in runs],
    }
    if all(value == NOTHING for value in figures["cost"]):
        del figures["cost"]
    return _by_run(runs, figures, "What came of it" if len(runs) == 1 else "What came of the runs")


def over_last(steps: int) -> str:
    """Which steps a training loss is of."""
    return "last step" if steps == 1 else f"mean of the last {steps} steps"


def state(run: Observed) -> str:
    """Where the run stands in its budget."""
    if run.result is not None:
        return "finished"
    return "not begun" if run.progress is None else f"{percent(run.progress)} of it spent"


def validations(run: Observed, most: int) -> Element | None:
    """Every validation; of very many, evenly spread ones with the last."""
    records = run.validations
    if not records:
        return None
    chosen = spread(len(records), most)
    sources = run.sources
    rows = [
        (
            number(record["step"]),
            number(record.get("tokens")),
            _time(record.get("elapsed_seconds")),
            number(or_nan(record.get("loss")), 4),
            *(number(or_nan(record.get("sources", {}).get(source)), 4) for source in sources),
            number(or_nan(record.get("bits_per_byte")), 4),
            _perplexity(or_nan(record.get("loss"))),
        )
        for record in (records[index] for index in chosen)
    ]
    heads = (
        "step",
        "tokens",
        "time",
        "loss",
        *(f"loss on {source}" for source in sources),
        "bits a byte",
        "perplexity",
    )
    spread_out = "" if len(chosen) == len(records) else f"; {len(chosen)} of {len(records):,}, evenly spread"
    return table(heads, rows, caption=f"Validation of {run.name}, losses in nats a token{spread_out}")


def sources(runs: Sequence[Observed]) -> Element | None:
    """The newest loss on each source."""
    names = list(dict.fromkeys(name for run in runs for name in run.sources))
    if not names:
        return None
    newest = [run.validations[-1].get("sources", {}) if run.validations else {} for run in runs]
    rows = [(name, *(number(or_nan(each.get(name)), 4) for each in newest)) for name in names]
    heads = ("source", *(run.name for run in runs))
    return table(heads, rows, caption="Newest validation loss by source (nats a token)")


def tasks(runs: Sequence[Observed]) -> Element | None:
    """The newest figure of each task and metric."""
    points = [task_points(run) for run in runs]
    keys = list(dict.fromkeys(key for each in points for key in each))
    if not keys:
        return None
    rows = [
        (task, spoken(metric), *(_task(metric, each.get((task, metric))) for each in points)) for task, metric in keys
    ]
    heads = ("task", "metric", *(run.name for run in runs))
    return table(heads, rows, caption="Benchmarks as training went: the newest figures ± standard error", texts=(1,))


def layers(runs: Sequence[Observed]) -> Element | None:
    """The newest update sizes and largest logits."""
    newest = [(run, records[-1]) for run in runs if (records := run.journal.of_kind("layers"))]
    names = list(
        dict.fromkeys(
            name
            for _, record in newest
            for measure in ("update_size", "largest_logit")
            for name in record.get(measure, {})
        )
    )
    if not names:
        return None
    heads = ["layer"]
    for run, _ in newest:
        whose = f"{run.name}: " if len(runs) > 1 else ""
        heads += [f"{whose}update size", f"{whose}largest logit"]
    rows = [
        (
            name,
            *(
                significant(or_nan(record.get(measure, {}).get(name)))
                for _, record in newest
                for measure in ("update_size", "largest_logit")
            ),
        )
        for name in sorted(names, key=_by_depth)
    ]
    return table(heads, rows, caption="Newest relative update and largest logit by layer")


def speed(runs: Sequence[Observed]) -> Element:
    """How fast the runs were, and where their time went."""
    figures: dict[str, list[Content]] = {
        "tokens a second, median": [number(_quantile(run, "tokens_per_second", 0.5)) for run in runs],
        "slowest 5 % of steps below": [number(_quantile(run, "tokens_per_second", 0.05)) for run in runs],
        "milliseconds a step, median": [number(_quantile(run, "milliseconds", 0.5), 1) for run in runs],
        "MFU, median": [percent(_quantile(run, "mfu", 0.5)) for run in runs],
        "time in steps": [_time(run.seconds_in_steps) for run in runs],
        "time in all": [_time(run.seconds) for run in runs],
        "share of time in steps": [
            percent(run.seconds_in_steps / run.seconds if run.seconds else None) for run in runs
        ],
        "price": [
            NOTHING if run.recipe.price is None else f"{human_dollars(run.recipe.price)} an hour" for run in runs
        ],
        "cost": [NOTHING if run.dollars is None else human_dollars(run.dollars) for run in runs],
    }
    return _by_run(runs, figures, "Speed, time and cost")


def events(run: Observed) -> Element | None:
    """Sittings, and all that happened besides training."""
    journal = run.journal
    rows: list[tuple[Content, ...]] = [
        (number(mark.step), without_folders(mark.text)) for mark in journal.marks[:_MOST_EVENTS]
    ]
    more = [
        (len(journal.marks) - _MOST_EVENTS, "more of these", ""),
        (len(journal.skipped_steps), "steps skipped, not finite", f" ({_some(journal.skipped_steps)})"),
        (journal.lost, "steps that a crash lost, done once more", ""),
        (journal.cut_short, "lines of metrics.jsonl that were cut short, passed over", ""),
    ]
    rows += [(NOTHING, f"{what}: {count:,}{which}") for count, what, which in more if count > 0]
    return table(("step", "what happened"), rows, caption=f"What happened to {run.name}", texts=(1,)) if rows else None


def spread(count: int, most: int) -> list[int]:
    """At most so many of `count` places, evenly spread, with the first and the last."""
    if count <= most:
        return list(range(count))
    return sorted({round(index * (count - 1) / (most - 1)) for index in range(most)})


def _by_run(runs: Sequence[Observed], figures: Mapping[str, Sequence[Content]], caption: str) -> Element:
    """Of one run a row for each figure, of several a row for each run.

    Args:
        figures: by name, one for each run.
    """
    if len(runs) == 1:
        return table(("figure", "value"), [(name, values[0]) for name, values in figures.items()], caption=caption)
    rows = zip([run.name for run in runs], *figures.values(), strict=True)
    return table(("run", *figures), rows, caption=caption)


def _over_last(runs: Sequence[Observed]) -> str:
    counts = {run.last_steps for run in runs}
    return over_last(counts.pop()) if len(counts) == 1 else "mean of the last steps"


def _mean(run: Observed, *, alone: bool) -> str:
    losses = run.last_losses
    if not len(losses):
        return NOTHING
    of = "" if alone and len(losses) == run.last_steps else f" (of {len(losses)})"
    return f"{number(float(losses.mean()), 4)}{of}"


def _flops(run: Observed) -> str:
    if run.result is not None:
        return scientific(float(run.result["spent"]["flops"]))
    return scientific(float(run.flops[-1])) if len(run.journal) else NOTHING


def _perplexity(loss: float | None) -> str:
    return significant(None if loss is None or not loss < 700 else float(np.exp(loss)), 4)


def _time(seconds: object) -> str:
    return human_seconds(float(seconds)) if isinstance(seconds, int | float) else NOTHING


def speed_of(run: Observed) -> float | None:
    """Tokens a second, the median of steps."""
    return _quantile(run, "tokens_per_second", 0.5)


def _quantile(run: Observed, column: str, share: float) -> float | None:
    values = run.journal.columns[column]
    values = values[np.isfinite(values)]
    return float(np.quantile(values, share)) if len(values) else None


def _task(metric: str, points: list[tuple[int, float, float]] | None) -> str:
    if not points:
        return NOTHING
    _, value, error = points[-1]
    return f"{_figure(metric, value)} ± {_figure(metric, error)}" if error else _figure(metric, value)


def _figure(metric: str, value: float) -> str:
    """A share in percent, as on the command line; else four digits that count."""
    if is_share(metric):
        return shown(metric, value)
    return scientific(value, 4) if math.isfinite(value) and abs(value) >= _LARGE else significant(value, 4)


def _some(steps: list[int]) -> str:
    shown = ", ".join(f"{step:,}" for step in steps[:12])
    return shown if len(steps) <= 12 else f"{shown}, …"


def _by_depth(layer: str) -> tuple[int, int, str]:
    block = layer.removeprefix("blocks.")
    if block.isdecimal():
        return 1, int(block), layer
    return (0 if layer == "embedding" else 2), 0, layer
