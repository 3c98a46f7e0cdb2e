"""What is measured: one JSON object a line in `metrics.jsonl`, and what a person sees meanwhile."""

import json
import sys
import time
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from daybreak.duration import human_seconds
from daybreak.progress import say

_SECONDS_BETWEEN_LINES = 10.0


@final
class Metrics:
    """Appends records to a file and shows the newest step. Use it as a context manager.

    Args:
        path: the JSONL file; a failure to write it is said once and stops nothing.
        attempt: which sitting of the run this is, from 1; kept in every record.
    """

    def __init__(self, path: Path, attempt: int) -> None:
        self._path, self._attempt = path, attempt
        self._display = _LiveDisplay() if sys.stderr.isatty() else _PlainDisplay()
        self._failed = False

    def __enter__(self) -> Self:
        self._end_a_line_cut_short()
        self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.stop()

    def step(self, record: dict[str, Any], *, seconds_left: float | None) -> None:
        """Record a training step."""
        self._append({"kind": "train", **record})
        self._display.step(record, seconds_left)

    def event(self, kind: str, record: dict[str, Any], line: str) -> None:
        """Record something rarer, and leave a line for the person."""
        self._append({"kind": kind, **record})
        self._display.line(line)

    def _end_a_line_cut_short(self) -> None:
        """A crash may have left half a record; the next must not be appended to it."""
        if self._path.is_file() and self._path.read_bytes()[-1:] not in (b"", b"\n"):
            with self._path.open("a") as file:
                file.write("\n")

    def _append(self, record: dict[str, Any]) -> None:
        try:
            with self._path.open("a") as file:
                file.write(json.dumps({**_finite(record), "attempt": self._attempt}, allow_nan=False) + "\n")
        except OSError as error:
            if not self._failed:
                self._failed = True
                say(f"warning: {self._path} cannot be written ({error}); training goes on without it")


def read_metrics(path: Path, kind: str) -> list[dict[str, Any]]:
    """The records of one kind, by step. Where a later attempt began again, earlier records from there on are lost work.

    A line that a crash cut short is passed over.
    """
    if not path.is_file():
        return []
    kept: list[dict[str, Any]] = []
    attempt = 0
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["attempt"] > attempt and record["kind"] == "train":
            attempt = record["attempt"]
            kept = [earlier for earlier in kept if earlier["step"] < record["step"]]
        kept.append(record)
    by_step = {record["step"]: record for record in kept if record["kind"] == kind}
    return [by_step[step] for step in sorted(by_step)]


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity: they become null."""
    return {key: None if isinstance(value, float) and not isfinite(value) else value for key, value in record.items()}


def _figures(record: dict[str, Any]) -> str:
    mfu = "n/a" if record["mfu"] is None else f"{record['mfu']:.0%}"
    return (
        f"step {record['step']:>6,}  loss {record['loss']:.4f}  lr {record['lr']:.2e}  "
        f"norm {record['gradient_norm']:.2f}  {record['milliseconds']:,.0f} ms  "
        f"{record['tokens_per_second']:,.0f} tok/s  mfu {mfu}"
    )


def _spent(record: dict[str, Any]) -> float:
    return min(1.0, float(record["progress"]) + float(record["progress_share"]))


def _left(seconds: float | None) -> str:
    return "?" if seconds is None else human_seconds(seconds)


@final
class _PlainDisplay:
    """Lines for a pipe: the first step, then one every few seconds."""

    def __init__(self) -> None:
        self._shown = -_SECONDS_BETWEEN_LINES

    def start(self) -> None:
        """Nothing to set up."""

    def stop(self) -> None:
        """Nothing to take down."""

    def step(self, record: dict[str, Any], seconds_left: float | None) -> None:
        now = time.monotonic()
        if now - self._shown >= _SECONDS_BETWEEN_LINES:
            self._shown = now
            say(f"{_figures(record)}  budget {_spent(record):.1%}  left {_left(seconds_left)}")

    def line(self, text: str) -> None:
        say(text)


@final
class _LiveDisplay:
    """A bar and a line of figures that stay at the bottom of a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), refresh_per_second=4, transient=True)

    def start(self) -> None:
        self._live.start()

    def stop(self) -> None:
        self._live.stop()

    def step(self, record: dict[str, Any], seconds_left: float | None) -> None:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=1.0, completed=_spent(record), width=40),
            f"{_spent(record):.1%} of the budget, {_left(seconds_left)} left",
        )
        self._live.update(Group(bar, Text(_figures(record), no_wrap=True)))

    def line(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)
