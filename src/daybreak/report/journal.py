"""What a run measured, read once and kept in columns: a million steps take a hundred megabytes."""

import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np

from daybreak.finite import or_nan
from daybreak.progress import progress
from daybreak.report.thin import Values
from daybreak.training.metrics import each_record

_COLUMNS = (
    "step",
    "attempt",
    "tokens",
    "flops",
    "batch_tokens",
    "length",
    "loss",
    "lr",
    "gradient_norm",
    "milliseconds",
    "tokens_per_second",
    "mfu",
    "elapsed_seconds",
    "progress",
    "progress_share",
    "skipped",
)
_CHANGE = re.compile(r"^(\S+): (.*) here, (.*) there$")  # a line of Recipe.differences
_WORTH_A_BAR = 30_000_000  # bytes, some seconds of reading


@final
@dataclass(frozen=True)
class Mark:
    """A step at which something happened, and what: a line for a person."""

    step: int
    kind: str
    text: str


@final
@dataclass(frozen=True)
class Journal:
    """The steps and the rarer records of a run, as `read_metrics` gives them: lost work is left out.

    Attributes:
        columns: of the training records, (steps,) each, in the order of steps; NaN where a record has no number.
        rarer: records of the other kinds, by kind, in the order of steps.
        lost: training steps that were done once more, since a crash lost them.
        cut_short: lines that hold no record.
    """

    columns: Mapping[str, Values]
    rarer: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    lost: int = 0
    cut_short: int = 0

    def __len__(self) -> int:
        return len(self.columns["step"])

    @property
    def steps(self) -> Values:
        return self.columns["step"]

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return self.rarer.get(kind, [])

    def at(self, steps: Values, values: Values) -> Values:
        """`values`, (steps,), at some other steps; between two records a straight line."""
        return np.interp(steps, self.steps, values) if len(self) else np.full(len(steps), np.nan)

    @cached_property
    def skipped_steps(self) -> list[int]:
        """Steps that the guard refused, since loss or gradient was not finite."""
        skipped = np.nan_to_num(self.columns["skipped"])
        return [int(step) for step in self.steps[np.diff(skipped, prepend=0.0) > 0]]

    @cached_property
    def sittings(self) -> list[tuple[int, int]]:
        """First and last step of each sitting whose work was kept."""
        attempts = self.columns["attempt"]
        firsts = np.flatnonzero(np.diff(attempts, prepend=np.nan) != 0)
        lasts = [*(firsts[1:] - 1), len(self) - 1]
        return (
            [(int(self.steps[a]), int(self.steps[b])) for a, b in zip(firsts, lasts, strict=True)] if len(self) else []
        )

    @cached_property
    def marks(self) -> list[Mark]:
        """All that happened besides training, but for single skipped steps."""
        found = [
            Mark(first, "sitting", f"sitting {number} begins")
            for number, (first, _) in enumerate(self.sittings, start=1)
            if number > 1
        ]
        for record in self.of_kind("changes"):
            settings = [_CHANGE.sub(r"\1: \2, before \3", str(each)) for each in record.get("settings", [])]
            found.append(Mark(record["step"], "changes", f"goes on with other settings: {'; '.join(settings)}"))
        for record in self.of_kind("extension"):
            found.append(Mark(record["step"], "extension", f"extended to {record.get('budget')}"))
        for record in self.of_kind("rollback"):
            back_to, loss = record.get("back_to"), record.get("loss")
            where = "only this step is passed by" if back_to is None else f"back to the weights of step {back_to:,}"
            found.append(Mark(record["step"], "rollback", f"loss {_loss(loss)} is a spike; {where}"))
        for record in self.of_kind("missing_tasks"):
            found.append(Mark(record["step"], "missing_tasks", f"benchmarks were left out: {record.get('why')}"))
        for record in self.of_kind("micro_batch"):
            text = f"out of memory; on with {record.get('micro_batch')} rows at once"
            found.append(Mark(record["step"], "micro_batch", text))
        return sorted(found, key=lambda mark: mark.step)


def read_journal(path: Path) -> Journal:
    """Read a run's `metrics.jsonl`, also one that is being written; without the file there are no steps."""
    columns = {name: array("d") for name in _COLUMNS}
    rarer: dict[str, list[dict[str, Any]]] = {}
    attempt = lost = cut_short = 0
    with _progress_over(path) as advance:
        for record in each_record(path):
            advance(1)
            if record is None:
                cut_short += 1
            elif record["kind"] != "train":
                rarer.setdefault(record["kind"], []).append(record)
            else:
                if record["attempt"] > attempt:
                    attempt = record["attempt"]
                    lost += _forget_from(record["step"], columns, rarer)
                for name, column in columns.items():
                    column.append(or_nan(record.get(name)))
    steps, last = np.unique(np.array(columns["step"])[::-1], return_index=True)
    kept = len(columns["step"]) - 1 - last  # of equal steps the one written last
    return Journal(
        {name: np.array(column)[kept] if len(steps) else np.empty(0) for name, column in columns.items()},
        {kind: _by_step(records) for kind, records in rarer.items()},
        lost,
        cut_short,
    )


def _progress_over(path: Path) -> AbstractContextManager[Callable[[int], None]]:
    """Shown for the lines of a file that takes a while to read."""
    if not path.is_file() or path.stat().st_size < _WORTH_A_BAR:
        return nullcontext(lambda _: None)
    with path.open("rb") as file:
        lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 24), b""))
    return progress(f"reading {path}", lines, "line")


def _forget_from(step: int, columns: Mapping[str, "array[float]"], rarer: dict[str, list[dict[str, Any]]]) -> int:
    """Take out what a later sitting did once more; returns how many steps."""
    first = bisect_left(columns["step"], step)
    lost = len(columns["step"]) - first
    for column in columns.values():
        del column[first:]
    for kind, records in rarer.items():
        rarer[kind] = [record for record in records if record["step"] < step]
    return lost


def _by_step(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    by_step = {record["step"]: record for record in records}
    return [by_step[step] for step in sorted(by_step)]


def _loss(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else "that is not finite"
