"""Runs: `train(recipe)` and `load(run)`.

RUN/
  recipe.toml       the resolved recipe
  execution.json    device, precision, micro-batch and so on, as chosen once
  identity.json     fingerprint of the recipe, hashes of corpus and tokenizer
  tokenizer.json    a copy of the corpus's
  metrics.jsonl     what was measured
  checkpoints/      step-00000120/ ...
  finished.json     once the budget is spent: what the run came to
"""

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch
from pydantic import ValidationError

from daybreak.checkpoint import Checkpoint, Checkpoints, open_latest
from daybreak.compose import (
    build_batches,
    build_budget,
    build_validation,
    choose_execution,
    refuse_what_does_not_work_yet,
    require_fitting_tokenizer,
    require_memory,
    summary,
)
from daybreak.data.shards import Corpus
from daybreak.data.tokenizer import Tokenizer
from daybreak.errors import UserError
from daybreak.evaluate.loss import Loss
from daybreak.files import locked, read_json, sha256_bytes, sha256_file, write_bytes, write_json
from daybreak.hardware import PrecisionName, autocast, is_here, peak_flops
from daybreak.model.gpt import GPT, build
from daybreak.progress import progress, say
from daybreak.recipe import Recipe
from daybreak.sample import Continuation, Sampler, SamplingConfig, continue_text
from daybreak.training import loop
from daybreak.training.budget import Clock, Spent, TimeBudget
from daybreak.training.execution import Execution, compile_blocks, time_micro_batch
from daybreak.training.guard import Guard, make_guard
from daybreak.training.metrics import Metrics, finite, read_journal, read_metrics
from daybreak.training.optimizer import build_optimizer
from daybreak.training.schedule import check_schedule
from daybreak.training.signals import stop_on_signals

_FORMAT = 1
_FEW_STEPS = 20


@final
@dataclass(frozen=True, repr=False)
class Run:
    """A run's folder, and the model in it.

    Attributes:
        path: the folder.
        recipe: the resolved recipe.
        tokenizer: the corpus's.
        execution: how it was executed.
        checkpoint: its newest valid checkpoint.
    """

    path: Path
    recipe: Recipe
    tokenizer: Tokenizer
    execution: Execution
    checkpoint: Checkpoint

    def __repr__(self) -> str:
        state = "finished" if self.finished else "unfinished"
        return f"Run({str(self.path)!r}: {self.recipe.name}, {self.spent.steps:,} steps, {state})"

    @property
    def spent(self) -> Spent:
        """What the run has used, as of its newest checkpoint."""
        return Spent(**self.checkpoint.state["spent"])

    @property
    def finished(self) -> bool:
        """Whether it reached the end of its budget, and the checkpoint is that of its end."""
        return _is_finished(self.path, self.checkpoint)

    @property
    def final_loss(self) -> float | None:
        """Validation loss at the end, on the part that is measured while training; None if it is not finished."""
        if not self.finished:
            return None
        loss = read_json(self.path / "finished.json")["validation"]["loss"]
        return math.nan if loss is None else float(loss)

    @cached_property
    def model(self) -> GPT:
        """The model with the weights of the newest checkpoint, on the run's device if it is here."""
        model = build(self.recipe.model, self.recipe.seed, self._device, self.execution.loss_rows)
        self.checkpoint.restore(model)
        return model

    def metrics(self, kind: str = "train") -> list[dict[str, Any]]:
        """Records of `train`, `validation` or `sample`, one a step."""
        return read_metrics(self.path / "metrics.jsonl", kind)

    def evaluate(self, data: Path | str | None = None) -> Loss:
        """Loss over a whole validation split, every token counted once.

        Args:
            data: a corpus; the one the run was trained on unless given.

        Raises:
            UserError: the corpus is missing, damaged, or has another tokenizer.
        """
        corpus = _open_corpus(data if data is not None else self.recipe.data.corpus)
        if corpus.tokenizer.identity != self.tokenizer.identity:
            raise UserError(
                f"{corpus.path} was prepared with tokenizer {corpus.tokenizer.name}, the run with another "
                f"({self.tokenizer.name}); prepare the text with --tokenizer {self.path}"
            )
        execution = self.execution.model_copy(update={"precision": self._precision})
        validation = build_validation(self.recipe, execution, corpus, self._device, sample=None)
        with progress("evaluating", corpus.validation.tokens, "tok") as advance:
            return validation.measure(self.model, advance)

    def sample(
        self,
        prompt: str = "",
        *,
        tokens: int = 200,
        count: int = 1,
        sampling: SamplingConfig | None = None,
        stream: Callable[[str], None] | None = None,
    ) -> list[Continuation]:
        """Continue a prompt `count` times.

        Args:
            stream: given each new bit of the first continuation as it is made.
        """
        with autocast(self._device, self._precision):
            return continue_text(
                self.model,
                self.tokenizer,
                prompt,
                tokens=tokens,
                count=count,
                sampling=sampling or SamplingConfig(),
                stream=stream,
            )

    @cached_property
    def _device(self) -> torch.device:
        device = torch.device(self.execution.device)
        return device if is_here(device) else torch.device("cpu")

    @property
    def _precision(self) -> PrecisionName:
        """The run's own on its own device; elsewhere fp32, which every device has."""
        return self.execution.precision if self._device.type == torch.device(self.execution.device).type else "fp32"


def load(path: Path | str) -> Run:
    """Open a run at its newest valid checkpoint.

    Raises:
        UserError: `path` is no run, has no checkpoint yet, or all are damaged.
    """
    path = Path(path)
    if not (path / "recipe.toml").is_file():
        raise UserError(f"{path} is not a run: it has no recipe.toml; daybreak train makes one")
    checkpoint = open_latest(path / "checkpoints")
    if checkpoint is None:
        raise UserError(f"{path} has no checkpoint yet; let it train until its first one")
    recipe = _read_recipe(path)
    execution = _read_execution(path)
    return Run(path, recipe, Tokenizer.load(path / "tokenizer.json"), execution, checkpoint)


def train(
    recipe: Recipe | str | Path,
    *,
    data: Path | str | None = None,
    out: Path | str | None = None,
    started: float | None = None,
) -> Run:
    """Train a recipe, or go on with the run that lies in `out`.

    Args:
        recipe: a Recipe, or a name or path that `Recipe.load` takes.
        data: the corpus; the recipe's own unless given.
        out: the run's folder; `runs/NAME` unless given.
        started: reading of the monotonic clock from which a time budget counts; now unless given.

    Returns:
        The run, finished or stopped by a signal.

    Raises:
        UserError: anything the person can mend; nothing is lost or half-written.
    """
    clock = Clock(time.monotonic() if started is None else started)
    if not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe)
    if data is not None:
        recipe = recipe.with_data(data)
    refuse_what_does_not_work_yet(recipe)
    corpus = _open_corpus(recipe.data.corpus)
    recipe = recipe.with_data(corpus.path.resolve())
    require_fitting_tokenizer(recipe, corpus.tokenizer)
    path = Path(out) if out is not None else Path("runs") / (recipe.name or "run")

    with locked(path):
        checkpoint = open_latest(path / "checkpoints")
        goes_on = _is_same_run(path, recipe, corpus, has_checkpoint=checkpoint is not None)
        if checkpoint is not None and _is_finished(path, checkpoint):
            say(f"{path} is finished; choose another --out to train again")
        else:
            _train_until_stopped(path, recipe, corpus, checkpoint, clock, goes_on=goes_on)
    return load(path)


def _train_until_stopped(
    path: Path, recipe: Recipe, corpus: Corpus, checkpoint: Checkpoint | None, clock: Clock, *, goes_on: bool
) -> None:
    metrics_file = path / "metrics.jsonl"
    recorded = read_journal(metrics_file) if goes_on else []
    # Work that was lost counts: it was paid for. Downtime does not.
    clock.before = max((float(record["elapsed_seconds"]) for record in recorded), default=0.0)
    execution = _resumed_execution(path) if goes_on and (path / "execution.json").exists() else None
    execution = execution or choose_execution(recipe)
    device = execution.apply()
    batches = build_batches(recipe, execution, corpus, device)
    budget = build_budget(recipe, batches, clock, recorded)
    check_schedule(recipe.schedule, budget.moment(Spent()))
    require_memory(recipe, device)
    model = build(recipe.model, recipe.seed, device, execution.loss_rows)
    optimizer = build_optimizer(recipe.optimizer, model)
    guard, spent = make_guard(execution.precision), Spent()
    if checkpoint is not None:
        checkpoint.restore(model, optimizer)
        guard, spent = Guard(**checkpoint.state["guard"]), Spent(**checkpoint.state["spent"])
        clock.before = max(clock.before, spent.elapsed_seconds)
        say(f"going on from {checkpoint.path}, step {spent.steps:,}")
    if execution.compile:
        rows = next(batches.step(spent.windows))
        execution = execution.model_copy(update={"compile": compile_blocks(model, rows, device, execution.precision)})
    if isinstance(budget, TimeBudget):
        rows = next(batches.step(spent.windows))
        micro_batches = recipe.batch.tokens // rows.inputs.numel()
        budget.step_seconds = micro_batches * time_micro_batch(model, rows, device, execution.precision)
    if not budget.allows_another_step(spent) and spent.steps == 0:
        raise UserError(
            f"budget = {recipe.budget} is spent before the first step: starting took {clock.elapsed():.1f} s"
        )
    validation_part = build_validation(recipe, execution, corpus, device, sample=recipe.evaluation.tokens)
    corpus.tokenizer.encode(recipe.samples.prompt)  # a character it lacks is said now, not at the first sample
    if not goes_on:
        _begin(path, recipe, corpus)
    write_json(path / "tokenizer.json", corpus.tokenizer.to_json())
    write_json(path / "execution.json", execution.model_dump(mode="json"))
    say(summary(path, recipe, budget, execution, device))

    attempt = 1 + max((record["attempt"] for record in recorded), default=0)
    samples = recipe.samples
    with stop_on_signals() as stop, Metrics(metrics_file, attempt) as metrics, closing(batches):
        parts = loop.Parts(
            model=model,
            optimizer=optimizer,
            batches=batches,
            budget=budget,
            schedule=recipe.schedule,
            peak_lr=recipe.optimizer.lr,
            clip=recipe.optimizer.clip,
            guard=guard,
            validation=validation_part,
            sampler=Sampler(samples.every, corpus.tokenizer, samples.prompt, samples.tokens, samples.sampling),
            checkpoints=Checkpoints(path / "checkpoints", recipe.checkpoint.every, recipe.checkpoint.keep),
            metrics=metrics,
            stop=stop,
            clock=clock,
            device=device,
            precision=execution.precision,
            flops_per_token=budget.rates.flops_per_token,
            peak_flops=peak_flops(device, execution.precision),
        )
        try:
            spent, validation = loop.train(parts, spent)
        except torch.OutOfMemoryError:
            raise UserError(
                f"{device} ran out of memory with a micro-batch of {execution.micro_batch}; begin again in a new --out "
                f"with execution.micro_batch={max(1, execution.micro_batch // 2)}, which computes the same steps"
            ) from None
    if validation is not None:  # not stopped before its end
        if isinstance(budget, TimeBudget):
            _warn_of_a_budget_too_small(budget, spent, clock)
        result = finite({**asdict(validation), "bits_per_byte": validation.bits_per_byte})
        write_json(path / "finished.json", {"spent": asdict(spent), "validation": result})


def _warn_of_a_budget_too_small(budget: TimeBudget, spent: Spent, clock: Clock) -> None:
    """Say what a person should know of a run whose clock left it little time, or ran over."""
    if spent.steps < _FEW_STEPS:
        say(f"warning: only {spent.steps} steps fitted into {budget}; give it more, or a smaller batch.tokens")
    over = clock.elapsed() - budget.seconds
    if budget.counts == "process" and over > max(3.0, 0.01 * budget.seconds):
        say(f"warning: {over:.0f} s over {budget}: an evaluation took longer than any before; see evaluation.tokens")


def _begin(path: Path, recipe: Recipe, corpus: Corpus) -> None:
    """Write what identifies a new run. Nothing can be lost: the folder has no checkpoint."""
    (path / "metrics.jsonl").unlink(missing_ok=True)
    write_json(path / "identity.json", _identity(recipe, corpus))
    write_bytes(path / "recipe.toml", recipe.to_toml().encode())


def _is_same_run(path: Path, recipe: Recipe, corpus: Corpus, *, has_checkpoint: bool) -> bool:
    """Whether the folder holds this very run, to be gone on with; False if it holds nothing that could be lost.

    Raises:
        UserError: there are checkpoints of another run, or files that go with them are missing or changed.
    """
    if not has_checkpoint and not (path / "recipe.toml").exists():
        return False
    before = _read_recipe(path)
    # Where the corpus lies may change; what is in it is held by its hashes.
    differences = recipe.differences(before.with_data(recipe.data.corpus or ""))
    if not differences and read_json(path / "identity.json") != _identity(before, corpus):
        differences = [f"data: another version of the corpus {corpus.path}"]
    if differences and has_checkpoint:
        shown = "\n  ".join(differences)
        raise UserError(f"{path} holds a run with other settings; choose another --out, or give the same:\n  {shown}")
    return not differences


def _is_finished(path: Path, checkpoint: Checkpoint) -> bool:
    """Whether the budget was spent, and the checkpoint is that of the last step."""
    if not (path / "finished.json").exists():
        return False
    spent = read_json(path / "finished.json").get("spent")
    return isinstance(spent, dict) and spent.get("steps") == checkpoint.state["spent"]["steps"]


def _identity(recipe: Recipe, corpus: Corpus) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "fingerprint": recipe.fingerprint,
        "recipe_sha256": sha256_bytes(recipe.to_toml().encode()),
        "corpus": sha256_file(corpus.path / "manifest.json"),
        "tokenizer": corpus.tokenizer.identity,
    }


def _read_recipe(path: Path) -> Recipe:
    """Raises UserError if the recipe of a run was changed since it began."""
    recipe = Recipe.load(path / "recipe.toml")
    if read_json(path / "identity.json").get("recipe_sha256") != sha256_file(path / "recipe.toml"):
        raise UserError(f"{path / 'recipe.toml'} was changed after the run began; restore it, or train anew")
    return recipe


def _resumed_execution(path: Path) -> Execution | None:
    """The choices a run was begun with; None, said aloud, if its device is not here."""
    execution = _read_execution(path)
    if execution.torch_version != torch.__version__:
        say(
            f"warning: the run was begun with torch {execution.torch_version}, this is {torch.__version__}; "
            "losses may differ in their last digits"
        )
    if is_here(torch.device(execution.device)):
        return execution
    say(f"warning: the run used {execution.device}, which is not here; losses will differ in their last digits")
    return None


def _read_execution(path: Path) -> Execution:
    try:
        execution = Execution.model_validate(read_json(path / "execution.json"))
        torch.device(execution.device)
    except (ValidationError, RuntimeError):
        raise UserError(f"{path / 'execution.json'} is damaged; restore it, or train anew in another --out") from None
    return execution


def _open_corpus(path: Path | str | None) -> Corpus:
    if path is None:
        raise UserError("no corpus: give --data CORPUS; daybreak prepare makes one")
    return Corpus.open(Path(path))
