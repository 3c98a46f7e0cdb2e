"""The trials of a study: one training run each, on this machine or on many, exactly as if run by hand.

OUT/
  study.json            the design, and what it reads
  paces.json            speed and memory of each variant
  tuned.json            what each variant chose for itself
  tuning/ trials/       VARIANT/SEED/: a run's folder, and trial.json once it is done
"""

import contextlib
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from daybreak.compose import build_validation
from daybreak.data.reading import Reading
from daybreak.errors import DivergedError, UserError
from daybreak.files import read_sealed, write_sealed
from daybreak.finite import finite, or_nan
from daybreak.hardware import is_out_of_memory
from daybreak.recipe import Recipe
from daybreak.run import Run, train
from daybreak.training.metrics import read_metrics

_RECORD = "trial.json"


@final
@dataclass(frozen=True)
class Task:
    """One run to make.

    Attributes:
        out: its folder.
        recipe: with budget, seed, and corpus.
        validation: a corpus to measure it on, in place of its own.
        until: reading of this machine's monotonic clock at which it saves and stops, to go on in another sitting.
        keep: leave its weights on disk.
    """

    variant: str
    seed: int
    out: Path
    recipe: Recipe
    validation: str | None = None
    until: float | None = None
    keep: bool = False


@final
@dataclass(frozen=True)
class Trial:
    """What a run came to.

    Attributes:
        loss: nats a token on held-out text; NaN where it has diverged.
        train_seconds: of its steps alone.
    """

    variant: str
    seed: int
    loss: float
    bits_per_byte: float
    steps: int
    tokens: int
    flops: float
    train_seconds: float

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.train_seconds if self.train_seconds else math.nan


@final
@dataclass(frozen=True)
class Attempt:
    """What came of a task; neither where it was stopped before its end.

    Attributes:
        failure: why the run cannot be made.
    """

    trial: Trial | None = None
    failure: str | None = None


def attempt(task: Task) -> Attempt:
    """Make a run, or go on with it; what it says goes to its log. One that fails leaves the others of a study alone."""
    try:
        return Attempt(trial=perform(task))
    except UserError as error:
        return Attempt(failure=str(error))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return Attempt(failure=f"out of memory: {error}")


def perform(task: Task) -> Trial | None:
    """As `attempt`.

    Returns:
        None if it was stopped before its end.

    Raises:
        UserError: it cannot be made.
    """
    done = read_trial(task.out)
    if done is not None:
        return done
    stop_after = None
    if task.until is not None:
        left = task.until - time.monotonic()
        if left <= 0:
            return None
        stop_after = f"{left:.3f}s"
    task.out.mkdir(parents=True, exist_ok=True)
    with (task.out / "log.txt").open("a", encoding="utf-8") as log, contextlib.redirect_stderr(log):
        try:
            run = train(task.recipe, out=task.out, stop_after=stop_after)
        except DivergedError as error:
            print(error, file=log)
            trial = _diverged(task)
        else:
            if not run.finished:
                return None
            trial = _measured(run, task)
    write_sealed(task.out / _RECORD, finite(asdict(trial)))
    if not task.keep:
        shutil.rmtree(task.out / "checkpoints", ignore_errors=True)  # one that diverged at once has none
    return trial


def read_trial(out: Path) -> Trial | None:
    """What the run in a folder came to; None if it is not done.

    Raises:
        UserError: the record is damaged.
    """
    if not (out / _RECORD).is_file():
        return None
    content: Any = {key: math.nan if value is None else value for key, value in read_sealed(out / _RECORD).items()}
    try:
        return Trial(**content)
    except TypeError:
        raise UserError(f"{out / _RECORD} is not a trial's record; delete {out}, and the study makes it anew") from None


def _measured(run: Run, task: Task) -> Trial:
    assert run.result is not None  # it is finished
    figures: Mapping[str, Any] = run.result["validation"]
    if task.validation is not None:
        figures = _on_other_text(run, task.validation)
    spent = run.spent
    return Trial(
        variant=task.variant,
        seed=task.seed,
        loss=or_nan(figures["loss"]),
        bits_per_byte=or_nan(figures["bits_per_byte"]),
        steps=spent.steps,
        tokens=spent.tokens,
        flops=spent.flops,
        train_seconds=spent.train_seconds,
    )


def _diverged(task: Task) -> Trial:
    """A run that the guard ended, since its losses are no numbers."""
    steps = read_metrics(task.out / "metrics.jsonl", "train")
    return Trial(
        variant=task.variant,
        seed=task.seed,
        loss=math.nan,
        bits_per_byte=math.nan,
        steps=len(steps),
        tokens=steps[-1]["tokens"] if steps else 0,
        flops=steps[-1]["flops"] if steps else 0.0,
        train_seconds=sum(step["milliseconds"] for step in steps) / 1000,
    )


def _on_other_text(run: Run, corpus: str) -> Mapping[str, Any]:
    """The figures of a run on as much of another corpus's held-out text as it would measure of its own.

    Raises:
        UserError: the corpus has another tokenizer.
    """
    recipe = run.recipe.with_data(corpus)
    reading = Reading.open(recipe.data)
    if reading.tokenizer.identity != run.tokenizer.identity:
        raise UserError(
            f"validation = {corpus} has tokenizer {reading.tokenizer.name}, the trials another ({run.tokenizer.name})"
        )
    model = run.model
    device = model.embedding.weight.device
    part = build_validation(recipe, run.execution, reading, device, sample=recipe.evaluation.tokens)
    loss = part.measure(model)
    assert loss is not None  # nothing interrupts it
    return loss.figures
