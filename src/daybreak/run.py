"""Runs: `train(recipe)` and `load(run)`. The only place that builds parts from a recipe.

RUN/
  recipe.toml       the resolved recipe
  execution.json    device, precision, micro-batch and so on, as chosen once
  identity.json     fingerprint of the recipe, hashes of corpus and tokenizer
  tokenizer.json    a copy of the corpus's
  metrics.jsonl     what was measured
  checkpoints/      step-00000120/ ...
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch

from daybreak.checkpoint import Checkpoint, Checkpoints, open_latest
from daybreak.data.batches import Batches
from daybreak.data.shards import Corpus
from daybreak.data.tokenizer import Tokenizer
from daybreak.duration import Unit, human_seconds
from daybreak.errors import UserError
from daybreak.evaluate.loss import Loss, Validation, row_starts
from daybreak.files import locked, read_json, sha256_file, write_bytes, write_json
from daybreak.hardware import autocast, device_name, peak_flops, synchronize
from daybreak.model.gpt import GPT, build, count_parameters
from daybreak.progress import say
from daybreak.recipe import Recipe
from daybreak.sample import Continuation, Sampler, SamplingConfig, continue_text
from daybreak.training import loop
from daybreak.training.budget import Budget, Clock, Rates, Spent, TimeBudget, make_budget
from daybreak.training.execution import Execution, compile_blocks
from daybreak.training.flops import flops_per_token
from daybreak.training.guard import Guard, make_guard
from daybreak.training.metrics import Metrics, read_metrics
from daybreak.training.optimizer import build_optimizer
from daybreak.training.schedule import check_schedule
from daybreak.training.signals import stop_on_signals

_FORMAT = 1
_SAVED_BYTES_PER_SECOND = 200e6  # writing and hashing, until a save was timed
_SAVED_BYTES_PER_PARAMETER = 12


@final
@dataclass(frozen=True)
class Run:
    """A run's folder, and the model in it.

    Attributes:
        path: the folder.
        recipe: the resolved recipe.
        tokenizer: the corpus's.
        execution: how it was executed.
        spent: what it has used, as of its newest checkpoint.
        finished: whether it reached the end of its budget.
    """

    path: Path
    recipe: Recipe
    tokenizer: Tokenizer
    execution: Execution
    checkpoint: Checkpoint

    @property
    def spent(self) -> Spent:
        return Spent(**self.checkpoint.state["spent"])

    @property
    def finished(self) -> bool:
        return bool(self.checkpoint.state["finished"])

    @cached_property
    def model(self) -> GPT:
        """The model with the weights of the newest checkpoint, on the run's device if it is here."""
        model = build(self.recipe.model, self.recipe.seed, self._device)
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
        return _validation(self.recipe, self.execution, corpus, self._device, sample=None).measure(self.model)

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
        with autocast(self._device, self.execution.precision):
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
        here = device.type == "cpu" or (device.type == "cuda" and torch.cuda.is_available())
        return device if here else torch.device("cpu")


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
    recipe = Recipe.load(path / "recipe.toml")
    if read_json(path / "identity.json").get("recipe") != recipe.fingerprint:
        raise UserError(f"{path / 'recipe.toml'} was changed after the run began; restore it, or train anew")
    execution = Execution.model_validate(read_json(path / "execution.json"))
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
        recipe = recipe.with_data(Path(data).resolve())
    _refuse_what_does_not_work_yet(recipe)
    corpus = _open_corpus(recipe.data.corpus)
    recipe = recipe.with_data(corpus.path.resolve())
    _require_fitting_tokenizer(recipe, corpus.tokenizer)
    path = Path(out) if out is not None else Path("runs") / (recipe.name or "run")

    with locked(path):
        _begin_or_match(path, recipe, corpus)
        checkpoint = open_latest(path / "checkpoints")
        if checkpoint is not None and checkpoint.state["finished"]:
            say(f"{path} is finished; choose another --out to train again")
            return load(path)
        _train_locked(path, recipe, corpus, checkpoint, clock)
    return load(path)


def _train_locked(path: Path, recipe: Recipe, corpus: Corpus, checkpoint: Checkpoint | None, clock: Clock) -> None:
    length, stream = recipe.row_length, corpus.stream("train")
    steps = path / "metrics.jsonl"
    rows = recipe.batch.tokens // length
    execution = _read_execution(path)
    if execution is None:
        seconds = recipe.budget.amount if recipe.budget.unit is Unit.SECONDS else None
        execution = Execution.choose(recipe.execution, recipe.model, rows=rows, length=length, seconds=seconds)
    device = execution.apply()

    batches = Batches(
        stream,
        window=recipe.data.window,
        length=length,
        windows_per_step=recipe.batch.tokens // recipe.data.window,
        micro_batch=execution.micro_batch,
        seed=recipe.seed,
        device=device,
    )
    per_token = flops_per_token(recipe.model, length)
    rates = Rates(
        tokens_per_step=batches.tokens_per_step,
        windows_per_step=batches.windows_per_step,
        windows_per_epoch=batches.windows,
        flops_per_token=per_token,
        parameters=count_parameters(recipe.model),
    )
    budget = make_budget(recipe.budget, recipe.counts, clock, rates)
    _prepare_time_budget(budget, recipe, steps)
    check_schedule(recipe.schedule, budget.moment(Spent()))

    model = build(recipe.model, recipe.seed, device)
    optimizer = build_optimizer(recipe.optimizer, model)
    guard, spent = make_guard(execution.precision), Spent()
    if checkpoint is not None:
        checkpoint.restore(model, optimizer)
        guard, spent = Guard(**checkpoint.state["guard"]), Spent(**checkpoint.state["spent"])
        clock.before = _elapsed_before(spent, steps)
        say(f"going on from {checkpoint.path}, step {spent.steps:,}")
    if execution.compile:
        began = time.monotonic()
        compiled = compile_blocks(model, next(batches.step(spent.windows)), device, execution.precision)
        execution = execution.model_copy(update={"compile": compiled})
        say(f"compiled in {human_seconds(time.monotonic() - began)}" if compiled else "running eagerly")
    write_json(path / "execution.json", execution.model_dump(mode="json"))
    say(_summary(path, recipe, rates, budget, execution, device))

    sampling = recipe.samples
    with stop_on_signals() as stop, Metrics(steps, _attempts(steps) + 1) as metrics:
        parts = loop.Parts(
            model=model,
            optimizer=optimizer,
            batches=batches,
            budget=budget,
            schedule=recipe.schedule,
            peak_lr=recipe.optimizer.lr,
            clip=recipe.optimizer.clip,
            guard=guard,
            validation=_validation(recipe, execution, corpus, device, sample=recipe.evaluation.tokens),
            sampler=Sampler(sampling.every, corpus.tokenizer, sampling.prompt, sampling.tokens, sampling.sampling),
            checkpoints=Checkpoints(path / "checkpoints", recipe.checkpoint.every, recipe.checkpoint.keep),
            metrics=metrics,
            stop=stop,
            clock=clock,
            device=device,
            precision=execution.precision,
            flops_per_token=per_token,
            peak_flops=peak_flops(device, execution.precision),
        )
        try:
            loop.train(parts, spent)
        finally:
            batches.close()
    synchronize(device)


def _validation(
    recipe: Recipe, execution: Execution, corpus: Corpus, device: torch.device, sample: int | None
) -> Validation:
    stream = corpus.stream("validation")
    if len(stream) < 2:
        raise UserError(f"{corpus.path} has no validation text to measure the loss on")
    return Validation(
        every=recipe.evaluation.every,
        stream=stream,
        starts=row_starts(len(stream), recipe.row_length, sample),
        length=recipe.row_length,
        batch=execution.micro_batch,
        token_bytes=corpus.tokenizer.token_bytes,
        device=device,
        precision=execution.precision,
    )


def _open_corpus(path: Path | str | None) -> Corpus:
    if path is None:
        raise UserError("no corpus: give --data CORPUS; daybreak prepare makes one")
    return Corpus.open(Path(path))


def _refuse_what_does_not_work_yet(recipe: Recipe) -> None:
    """A setting is never silently ignored."""
    waiting = {
        "curriculum": recipe.curriculum is not None,
        "batch.ramp": recipe.batch.ramp is not None,
        "data.mixture (give one corpus with --data)": recipe.data.corpus is None and bool(recipe.data.mixture),
        f"optimizer.kind = adamw8bit (use optimizer.kind=adamw optimizer.lr={recipe.optimizer.lr})": (
            recipe.optimizer.kind == "adamw8bit"
        ),
        f"budget = {recipe.budget} (use hours, as 24h)": recipe.budget.unit is Unit.DOLLARS,
    }
    for setting, asked in waiting.items():
        if asked:
            raise UserError(f"recipe {recipe.name}: {setting} does not work yet")


def _require_fitting_tokenizer(recipe: Recipe, tokenizer: Tokenizer) -> None:
    wanted, vocab_size = recipe.data.tokenizer, recipe.model.vocab_size
    if tokenizer.vocab_size > vocab_size:
        raise UserError(
            f"the corpus's tokenizer {tokenizer.name} has {tokenizer.vocab_size:,} ids, but model.vocab_size = "
            f"{vocab_size:,}; add model.vocab_size={-(-tokenizer.vocab_size // 64) * 64}, or use another corpus"
        )
    if wanted is not None and wanted != tokenizer.name:
        raise UserError(
            f"recipe {recipe.name} is for tokenizer {wanted}, but the corpus was prepared with {tokenizer.name}; "
            f"prepare it with --tokenizer {wanted}, or add data.tokenizer={tokenizer.name} "
            f"model.vocab_size={-(-tokenizer.vocab_size // 64) * 64}"
        )


def _begin_or_match(path: Path, recipe: Recipe, corpus: Corpus) -> None:
    """Write a new run's files, or see that the run in `path` is this one."""
    identity = {
        "format": _FORMAT,
        "recipe": recipe.fingerprint,
        "corpus": sha256_file(corpus.path / "manifest.json"),
        "tokenizer": corpus.tokenizer.identity,
    }
    if not (path / "recipe.toml").exists():
        write_json(path / "identity.json", identity)
        write_json(path / "tokenizer.json", corpus.tokenizer.to_json())
        write_bytes(path / "recipe.toml", recipe.to_toml().encode())
        return
    differences = recipe.differences(Recipe.load(path / "recipe.toml"))
    if differences:
        shown = "\n  ".join(differences)
        raise UserError(
            f"{path} holds a run of another recipe; choose another --out, or give the same settings:\n  {shown}"
        )
    if read_json(path / "identity.json") != identity:
        raise UserError(f"{path} was trained on another version of {corpus.path}; choose another --out")


def _read_execution(path: Path) -> Execution | None:
    """The choices a run was begun with; None if there are none yet."""
    file = path / "execution.json"
    return Execution.model_validate(read_json(file)) if file.exists() else None


def _prepare_time_budget(budget: Budget, recipe: Recipe, steps: Path) -> None:
    """Give a budget in seconds its reserve, and the progress that lost steps were done at."""
    if not isinstance(budget, TimeBudget):
        return
    budget.evaluation_steps = recipe.evaluation.tokens / recipe.batch.tokens
    saved = _SAVED_BYTES_PER_PARAMETER * budget.rates.parameters
    budget.note_ending(save=saved / _SAVED_BYTES_PER_SECOND)
    budget.recorded = {
        record["step"] - 1: (record["progress"], record["progress_share"]) for record in read_metrics(steps, "train")
    }


def _elapsed_before(spent: Spent, steps: Path) -> float:
    """Seconds that earlier sittings took; work that was lost counts too."""
    return max([spent.elapsed_seconds, *(float(record["elapsed_seconds"]) for record in read_metrics(steps, "train"))])


def _attempts(steps: Path) -> int:
    return max((int(record["attempt"]) for record in read_metrics(steps, "train")), default=0)


def _summary(
    path: Path, recipe: Recipe, rates: Rates, budget: Budget, execution: Execution, device: torch.device
) -> str:
    accumulation = recipe.batch.tokens // (recipe.row_length * execution.micro_batch)
    return (
        f"{recipe.name} -> {path}: {rates.parameters:,} parameters, budget {budget}, {device_name(device)}, "
        f"{execution.precision}{', compiled' if execution.compile else ''}, "
        f"micro-batch {execution.micro_batch} x {recipe.row_length} tokens, accumulated {accumulation}x"
    )
