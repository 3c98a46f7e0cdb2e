"""What is measured: one JSON object a line in `metrics.jsonl`."""

import json
import sys
import zlib
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from daybreak.progress import say
from daybreak.training.display import LiveDisplay, PlainDisplay
from daybreak.training.outlook import Prospect
from daybreak.training.tracking import NO_TRACKING, Tracking


@final
class Metrics:
    """Appends records to a file and shows the newest step. Use it as a context manager.

    Args:
        path: the JSONL file; a failure to write it is said once and stops nothing. None, on all ranks but the first,
            records and shows nothing.
        attempt: which sitting of the run this is, from 1; kept in every record.
        tracking: where each record goes besides.
    """

    def __init__(self, path: Path | None, attempt: int, tracking: Tracking = NO_TRACKING) -> None:
        self._path, self._attempt, self._tracking = path, attempt, tracking
        self._display = LiveDisplay() if path is not None and sys.stderr.isatty() else PlainDisplay()
        self._failed = False

    def __enter__(self) -> Self:
        self._end_a_line_cut_short()
        self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.stop()
        self._tracking.close()

    def step(self, record: dict[str, Any]) -> None:
        """Record a training step."""
        self._append({"kind": "train", **record})

    def shows_now(self) -> bool:
        """Whether it is time to show a step again."""
        return self._path is not None and self._display.shows_now()

    def show(self, record: dict[str, Any], prospect: Prospect) -> None:
        """Show a step, and what is ahead of the run behind it."""
        self._display.show(record, prospect)

    def event(self, kind: str, record: dict[str, Any], line: str) -> None:
        """Record something rarer, and leave a line for the person."""
        self._append({"kind": kind, **record})
        if line:
            self._display.line(line)

    def _end_a_line_cut_short(self) -> None:
        """A crash may have left half a record; the next must not be appended to it."""
        if self._path is not None and self._path.is_file() and self._path.read_bytes()[-1:] not in (b"", b"\n"):
            self._write(b"\n")

    def _append(self, record: dict[str, Any]) -> None:
        if self._path is not None:
            record = {**finite(record), "attempt": self._attempt}
            line = _line(record)
            self._write(line)
            self._tracking.send(record, line)

    def _write(self, content: bytes) -> None:
        assert self._path is not None
        try:
            with self._path.open("ab") as file:
                file.write(content)
        except OSError as error:
            if not self._failed:
                self._failed = True
                say(f"warning: {self._path} cannot be written ({error}); training goes on without it")


def read_metrics(path: Path, kind: str) -> list[dict[str, Any]]:
    """The records of one kind, by step. Where a later attempt began again, earlier records from there on are lost work.

    A line that a crash cut short is passed over.
    """
    kept: list[dict[str, Any]] = []
    attempt = 0
    for record in each_record(path):
        if record is None:
            continue
        if record["attempt"] > attempt and record["kind"] == "train":
            attempt = record["attempt"]
            kept = [earlier for earlier in kept if earlier["step"] < record["step"]]
        kept.append(record)
    by_step = {record["step"]: record for record in kept if record["kind"] == kind}
    return [by_step[step] for step in sorted(by_step)]


def each_record(path: Path) -> Iterator[dict[str, Any] | None]:
    """What every line holds, in the order they were written, lost work included; None for one that was cut short.

    A last line that is just being written is passed over.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            record = _record(line.removesuffix(b"\n"))
            if record is not None or (line.endswith(b"\n") and line != b"\n"):
                yield record


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The training records that tell at what progress and time each step was done."""
    needed = ("elapsed_seconds", "progress", "progress_share")
    return [
        record for record in read_metrics(path, "train") if all(type(record.get(key)) in (int, float) for key in needed)
    ]


def copy_metrics(source: Path, target: Path, *, up_to_step: int, scale: float) -> None:
    """Copy the records up to a step, in the order in which they were made, for a run with another budget.

    Args:
        scale: of shares of the old budget to those of the new.
    """
    lines = source.read_bytes().split(b"\n") if source.is_file() else []
    records = [record for record in map(_record, lines) if record is not None and record["step"] <= up_to_step]
    for record in records:
        record |= {key: scale * record[key] for key in ("progress", "progress_share") if key in record}
    target.write_bytes(b"".join(map(_line, records)))


def damaged_lines(path: Path) -> list[int]:
    """Numbers, from 1, of the lines that are not as they were written: cut short by a crash, or damaged."""
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    return [number for number, line in enumerate(lines, start=1) if line and _record(line) is None]


def _line(record: dict[str, Any]) -> bytes:
    """A record with its checksum as its last entry."""
    body = json.dumps(record, allow_nan=False).encode()
    return body[:-1] + b', "crc32": "%08x"}\n' % zlib.crc32(body)


def _record(line: bytes) -> dict[str, Any] | None:
    """A line as the record it holds; None if a crash or a fault left something else there."""
    body = line[: -len(b', "crc32": "00000000"}')] + b"}"
    if line != body[:-1] + b', "crc32": "%08x"}' % zlib.crc32(body):
        return None
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return None
    return record if all(type(record.get(key)) is int for key in ("step", "attempt")) else None


def finite(record: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity: they become null."""
    return {key: _finite(value) for key, value in record.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return finite(value)
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value
