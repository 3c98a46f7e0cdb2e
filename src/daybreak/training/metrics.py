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

_SECONDS_BETWEEN_LINES = 5.0


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
        self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.stop()

    def step(self, record: dict[str, Any], *, seconds_left: float | None) -> None:
        """Record a training step."""
        self._append({"kind": "train", **record})
        self._display.step(_step_line(record, seconds_left))

    def event(self, kind: str, record: dict[str, Any], line: str) -> None:
        """Record something rarer, and leave a line for the person."""
        self._append({"kind": kind, **record})
        self._display.line(line)

    def _append(self, record: dict[str, Any]) -> None:
        try:
            with self._path.open("a") as file:
                file.write(json.dumps({**_finite(record), "attempt": self._attempt}, allow_nan=False) + "\n")
        except OSError as error:
            if not self._failed:
                self._failed = True
                say(f"warning: {self._path} cannot be written ({error}); training goes on without it")


def read_metrics(path: Path, kind: str) -> list[dict[str, Any]]:
    """The records of one kind, by step; of a step that was replayed, the last attempt's.

    A last line that a crash cut short is passed over.
    """
    if not path.is_file():
        return []
    by_step: dict[int, dict[str, Any]] = {}
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["kind"] == kind:
            by_step[record["step"]] = record
    return [by_step[step] for step in sorted(by_step)]


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity: they become null."""
    return {key: None if isinstance(value, float) and not isfinite(value) else value for key, value in record.items()}


def _step_line(record: dict[str, Any], seconds_left: float | None) -> str:
    mfu = "n/a" if record["mfu"] is None else f"{record['mfu']:.0%}"
    left = "?" if seconds_left is None else human_seconds(seconds_left)
    return (
        f"step {record['step']:>6,}  loss {record['loss']:.4f}  lr {record['lr']:.2e}  "
        f"norm {record['gradient_norm']:.2f}  {record['milliseconds']:,.0f} ms  "
        f"{record['tokens_per_second']:,.0f} tok/s  mfu {mfu}  budget {record['progress']:.1%}  left {left}"
    )


@final
class _PlainDisplay:
    """Lines for a pipe: the first step, then one every few seconds."""

    def __init__(self) -> None:
        self._shown = 0.0

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def step(self, text: str) -> None:
        now = time.monotonic()
        if now - self._shown >= _SECONDS_BETWEEN_LINES:
            self._shown = now
            say(text)

    def line(self, text: str) -> None:
        say(text)


@final
class _LiveDisplay:
    """A status line that stays at the bottom of a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), refresh_per_second=4, transient=True)

    def start(self) -> None:
        self._live.start()

    def stop(self) -> None:
        self._live.stop()

    def step(self, text: str) -> None:
        from rich.text import Text

        self._live.update(Text(text, style="bold cyan"))

    def line(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)
