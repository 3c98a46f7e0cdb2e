"""One run of `daybreak train` in a process of its own: watched, ended at its limit, and read from its own records."""

import os
import re
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import daybreak.run
from daybreak.recipe import Recipe
from daybreak.training.flops import flops_per_token
from processes import FailedError, our_command, shown

_POLL_SECONDS = 0.5
_SECONDS_TO_SAVE = 15.0
_SETTLED = 0.3  # share of the steps that are passed over before speed is taken
_ENDING = 0.05  # share of the steps whose mean training loss tuning looks at


@dataclass(frozen=True)
class Figures:
    """What a run came to.

    Attributes:
        wall_seconds: from process start to process end.
        until_first_step: seconds of the run's own clock, the first step included.
        compile_seconds: as the run said; None if it did not compile.
        peak_memory: bytes of the device in use, of the process on a CPU, polled twice a second.
        loss: on the part of the validation split that its end was measured on.
        last_training_loss: mean of the last 5 % of the steps.
    """

    command: str
    steps: int
    tokens: int
    tokens_per_second: float
    teraflops: float
    mfu: float | None
    peak_memory: int
    compile_seconds: float | None
    until_first_step: float
    train_seconds: float
    elapsed_seconds: float
    wall_seconds: float
    loss: float
    bits_per_byte: float
    last_training_loss: float


def train(recipe: str, settings: Sequence[str], corpus: Path, out: Path, cache: Path, limit: float) -> Figures:
    """Train into `out`, which is deleted once it is read.

    Args:
        cache: where compiled code is kept; an empty one makes compilation cold.
        limit: seconds after which the run is stopped.

    Raises:
        FailedError: it failed, or was not done by then.
    """
    shutil.rmtree(out, ignore_errors=True)
    words = our_command("train", recipe, *settings, "--data", str(corpus), "--out", str(out))
    environment = {"TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"), "TRITON_CACHE_DIR": str(cache / "triton")}
    log = out.with_suffix(".log")
    code, seconds, peak = watch(words, log, environment, limit)
    said = log.read_text(encoding="utf-8", errors="replace")
    if code:
        late = f" (its limit was {limit:.0f} s)" if seconds >= limit else ""
        raise FailedError(f"{shown(words)} ended with code {code} after {seconds:.0f} s{late}:\n{said[-3000:]}")
    try:
        return _read(out, Recipe.load(recipe, *settings), said, shown(words), seconds, peak)
    finally:
        shutil.rmtree(out)


def watch(words: Sequence[str], log: Path, environment: dict[str, str], limit: float) -> tuple[int, float, int]:
    """Run a command; at its limit it is asked to end, then made to.

    Returns:
        Its exit code, its seconds, and the most memory seen, in bytes.
    """
    with log.open("w", encoding="utf-8") as file:
        began, peak = time.monotonic(), 0
        process = subprocess.Popen(
            words, stdout=file, stderr=subprocess.STDOUT, env=os.environ | environment, process_group=0
        )
        asked = False
        while process.poll() is None:
            peak = max(peak, memory_in_use(process.pid))
            elapsed = time.monotonic() - began
            if elapsed > limit + _SECONDS_TO_SAVE:
                os.killpg(process.pid, signal.SIGKILL)
            elif elapsed > limit and not asked:
                process.terminate()
                asked = True
            with suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_SECONDS)
        return process.returncode, time.monotonic() - began, peak


def memory_in_use(pid: int) -> int:
    """Bytes of the first GPU in use; where there is none, the most that the process had in memory."""
    if shutil.which("nvidia-smi"):
        words = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return int(done.stdout.split()[0]) << 20 if done.returncode == 0 and done.stdout.split() else 0
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) << 10 if found else 0


def _read(out: Path, recipe: Recipe, said: str, command: str, seconds: float, peak: int) -> Figures:
    run = daybreak.run.load(out)
    records, result = run.metrics(), run.result
    assert result is not None
    settled = records[int(_SETTLED * len(records)) :]
    rate = statistics.median(record["tokens_per_second"] for record in settled)
    ending = records[-max(1, round(_ENDING * len(records))) :]
    compiled = re.search(r"compiled in (?:(\d+)m )?([\d.]+)s", said)
    validation = result["validation"]
    return Figures(
        command=command,
        steps=run.spent.steps,
        tokens=run.spent.tokens,
        tokens_per_second=rate,
        teraflops=rate * flops_per_token(recipe.model, recipe.row_length) / 1e12,
        mfu=None if settled[0]["mfu"] is None else statistics.median(record["mfu"] for record in settled),
        peak_memory=peak,
        compile_seconds=60 * int(compiled[1] or 0) + float(compiled[2]) if compiled else None,
        until_first_step=records[0]["elapsed_seconds"],
        train_seconds=run.spent.train_seconds,
        elapsed_seconds=run.spent.elapsed_seconds,
        wall_seconds=seconds,
        loss=validation["loss"],
        bits_per_byte=validation["bits_per_byte"],
        last_training_loss=statistics.mean(record["loss"] for record in ending),
    )
