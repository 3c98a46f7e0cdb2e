"""Measurements, one JSON object a line: appended as they are made, so that a benchmark that was stopped goes on."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch

Record = dict[str, Any]


class Journal:
    """The measurements of this machine with this torch; those of others lie in the same file and do not count."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, row: str, **figures: Any) -> Record:
        """Append a measurement, and have it on disk."""
        record = {"row": row, **figures, "date": datetime.now(UTC).date().isoformat(), "commit": commit(), **machine()}
        cut_short = self.path.exists() and self.path.read_bytes()[-1:] not in (b"", b"\n")
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * cut_short + json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return record

    def forget(self, contestant: str, row: str | None = None) -> None:
        """Measure a contestant anew, in one row or in all; what was measured before stays in the file."""
        self.add("forget", contestant=contestant, of=row)

    def records(self, row: str, **wanted: Any) -> list[Record]:
        """Measurements of a row that have these values, oldest first."""
        wanted = json.loads(json.dumps(wanted))  # tuples are lists there
        return [record for record in self._counting(row) if all(record.get(key) == wanted[key] for key in wanted)]

    def _counting(self, row: str) -> list[Record]:
        kept: list[Record] = []
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:  # cut short when the benchmark was killed
                continue
            if any(record.get(key) != value for key, value in machine().items()):
                continue
            if record["row"] == "forget":
                kept = [earlier for earlier in kept if not _is_of(earlier, record["contestant"], record.get("of"))]
            else:
                kept.append(record)
        return [record for record in kept if record["row"] == row]


def _is_of(record: Record, contestant: str, row: str | None) -> bool:
    return record.get("contestant") == contestant and row in (None, record["row"])


@cache
def machine() -> Record:
    """What figures depend on beside the code."""
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }


@cache
def commit() -> str:
    """Of this repository; `+` where files differ from it."""
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository, where the code was carried to
        return "unknown"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    for line in information.read_text().splitlines() if information.is_file() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
