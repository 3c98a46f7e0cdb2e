"""Runs whose records are made up, beside the files that a real run left."""

import json
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from daybreak.finite import finite

RECORD = {
    "batch_tokens": 64, "length": 16, "lr": 1e-3, "gradient_norm": 0.5, "milliseconds": 10.0,
    "tokens_per_second": 6400.0, "mfu": 0.25, "skipped": 0,
}  # fmt: skip


def copy_identity(run: Path, to: Path) -> Path:
    """All that a run's folder holds but metrics, checkpoints and its result."""
    to.mkdir(parents=True)
    for name in ("recipe.toml", "identity.json", "execution.json", "tokenizer.json"):
        shutil.copy(run / name, to / name)
    return to


def train_record(step: int, steps: int, **values: Any) -> dict[str, Any]:
    placed = {"step": step, "tokens": 64 * step, "elapsed_seconds": 1.0 + 0.01 * step}
    return {**RECORD, **placed, "progress": (step - 1) / steps, "progress_share": 1 / steps, **values}


def losses(steps: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A noisy curve that falls."""
    noise = np.random.default_rng(0).normal(0.0, 0.05, steps)
    return 2.0 + 6.0 * np.arange(1, steps + 1) ** -0.4 + noise


def write(path: Path, attempt: int, records: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Append lines as a run's metrics do, but all at once."""
    with (path / "metrics.jsonl").open("ab") as file:
        file.seek(0, 2)
        if file.tell():
            file.write(b"\n")  # behind a line that was cut short
        for kind, record in records:
            body = json.dumps({"kind": kind, **finite(record), "attempt": attempt})
            file.write(f'{body[:-1]}, "crc32": "{zlib.crc32(body.encode()):08x}"}}\n'.encode())
