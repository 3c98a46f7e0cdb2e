"""Runs: `train(recipe)` and `load(run)`.

RUN/
  recipe.toml       the resolved recipe
  execution.json    device, precision, micro-batch and so on, as chosen once
  identity.json     fingerprint of the recipe, hashes of corpus and tokenizer
  tokenizer.json    a copy of the corpus's
  metrics.jsonl     what was measured
  checkpoints/      step-00000120/ ...
  finished.json     once the budget is spent: what the run came to
  report.html       the page that daybreak report makes of it
  tensorboard/ …    what trackers write, where the recipe names some
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch

from daybreak.checkpoint import Checkpoint, list_checkpoints, open_latest, restore
from daybreak.compose import build_validation, require_fitting_tokenizer
from daybreak.data.documents import PLAIN, Fields
from daybreak.data.reading import Reading
from daybreak.data.shards import Corpus
from daybreak.data.tokenizer import Tokenizer
from daybreak.distributed import Ranks, joined
from daybreak.errors import UserError
from daybreak.evaluate.benchmarks import open_benchmarks
from daybreak.evaluate.language_model import DaybreakModel
from daybreak.evaluate.loss import Loss
from daybreak.evaluate.results import TaskResults
from daybreak.evaluate.sweep import TextLoss, measure
from daybreak.evaluate.task_choice import TaskChoice
from daybreak.evaluate.text import Text, read_text, text_of_split
from daybreak.files import require_text
from daybreak.finite import or_nan
from daybreak.folders import is_a, is_no
from daybreak.hardware import PrecisionName, is_here
from daybreak.identity import read_execution, read_identity, read_recipe, read_result
from daybreak.model.decoding import laid_out_for_one_row
from daybreak.model.gpt import GPT, build
from daybreak.model.kernels import Kernels
from daybreak.progress import progress
from daybreak.recipe import Recipe
from daybreak.sampling.settings import SamplingConfig
from daybreak.sampling.text import Continuation, Piece, continue_texts, stream_text
from daybreak.sitting import Sitting, sit
from daybreak.training.budget import Clock
from daybreak.training.execution import Execution
from daybreak.training.metrics import read_metrics
from daybreak.training.signals import stop_on_signals, stop_seconds
from daybreak.training.spent import Spent
from daybreak.training.state import State


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
        result: what it came to, once its budget was spent.
    """

    path: Path
    recipe: Recipe
    tokenizer: Tokenizer
    execution: Execution
    checkpoint: Checkpoint
    result: Mapping[str, Any] | None

    def __repr__(self) -> str:
        state = "finished" if self.finished else "unfinished"
        return f"Run({str(self.path)!r}: {self.recipe.name}, {self.spent.steps:,} steps, {state})"

    @property
    def spent(self) -> Spent:
        """What the run has used, as of its newest checkpoint."""
        return State.read(self.checkpoint).spent

    @property
    def finished(self) -> bool:
        """Whether it reached the end of its budget, and the checkpoint is that of its end."""
        return self.result is not None

    @property
    def final_loss(self) -> float | None:
        """Validation loss at the end, on the part that is measured while training; None if it is not finished."""
        return or_nan(self.result["validation"]["loss"]) if self.result else None

    @cached_property
    def model(self) -> GPT:
        """The model with the weights of the newest checkpoint, on the run's device if it is here."""
        return self._restored(self.execution.kernels)

    @cached_property
    def language_model(self) -> DaybreakModel:
        """Model and tokenizer, to measure any text with; attention is fused, whose memory does not grow with rows."""
        return DaybreakModel.of(
            self._restored(replace(self.execution.kernels, fused_attention=True)),
            self.tokenizer,
            name=str(self.path),
            context=self.recipe.row_length,
            tokens_at_once=self.execution.micro_batch * self.recipe.row_length,
            device=self._device,
            precision=self._precision,
        )

    @cached_property
    def _sampled_model(self) -> GPT:
        """The model in the layout that sampling reads fastest."""
        return laid_out_for_one_row(self.model) if self._device.type == "cpu" else self.model

    def metrics(self, kind: str = "train") -> list[dict[str, Any]]:
        """Records of `train`, `validation`, `sample` or `layers`, one a step."""
        return read_metrics(self.path / "metrics.jsonl", kind)

    def evaluate(self, data: Path | str | None = None) -> Loss:
        """Loss over a whole validation split, every token counted once.

        Args:
            data: a corpus, or a folder with those of the run's mixture; what the run was trained on unless given.

        Raises:
            UserError: the corpus is missing, damaged, or has another tokenizer.
        """
        recipe = self.recipe if data is None else self.recipe.with_data(data)
        reading = self._reading(data)
        execution = self.execution.model_copy(update={"precision": self._precision})
        validation = build_validation(recipe, execution, reading, self._device, sample=None)
        with progress("evaluating", reading.validation_tokens, "tok") as advance:
            loss = validation.measure(self.model, advance)
        assert loss is not None  # nothing interrupts it
        return loss

    def evaluate_tasks(self, choice: TaskChoice, context: int | None = None) -> TaskResults:
        """Benchmarks of lm-evaluation-harness.

        Args:
            context: tokens that the model sees at once; its own unless given.

        Raises:
            UserError: there is no such task, its items cannot be had, or the model has no positions so far.
        """
        own = self.recipe.model
        if context is not None and own.positions is not None and context > own.positions:
            raise UserError(
                f"{self.path} has learned positions for {own.positions} tokens, not for {context}; "
                f"give --context {own.positions}"
            )
        benchmarks = open_benchmarks(choice)
        return benchmarks.measure(self.model, self.tokenizer, precision=self._precision, context=context or own.context)

    def evaluate_text(
        self,
        *sources: str,
        context: int | None = None,
        stride: int | None = None,
        fields: Fields = PLAIN,
    ) -> TextLoss:
        """Loss, perplexity and bits per byte of any text, every token counted once.

        Args:
            sources: files, folders, globs, or whatever else `daybreak prepare` reads.
            context: tokens of a row; as in training unless given.
            stride: by how many tokens a row advances; the context unless given.

        Raises:
            UserError: there is no text, or the model cannot see so many tokens at once.
        """
        return measure(self.language_model, [read_text(self.language_model, sources, fields)], context, stride)

    def validation_texts(self, data: Path | str | None = None) -> list[Text]:
        """The validation splits, one a corpus, as `evaluate.sweep` takes them.

        Raises:
            UserError: as `evaluate`.
        """
        return [text_of_split(corpus) for corpus in self._reading(data).corpora]

    def sample(
        self,
        prompt: str | Sequence[str] = "",
        *,
        tokens: int = 200,
        count: int = 1,
        sampling: SamplingConfig | None = None,
        stop: Sequence[str] = (),
        advance: Callable[[int], None] = lambda _: None,
    ) -> list[Continuation]:
        """Continue a prompt, or each of many at once, `count` times; in fp32.

        Args:
            stop: strings in front of which a continuation ends.
            advance: told how many tokens were spent.

        Returns:
            Those of the first prompt, then those of the second, and so on.

        Raises:
            UserError: a prompt or a stop string holds characters that the tokenizer lacks, or a stop string is empty.
        """
        return continue_texts(
            self._sampled_model,
            self.tokenizer,
            [prompt] if isinstance(prompt, str) else prompt,
            tokens=tokens,
            count=count,
            sampling=sampling or SamplingConfig(),
            stop=stop,
            advance=advance,
        )

    def stream(
        self,
        prompt: str = "",
        *,
        tokens: int = 200,
        sampling: SamplingConfig | None = None,
        stop: Sequence[str] = (),
    ) -> Iterator[Piece]:
        """The first continuation that `sample` makes, token by token.

        Raises:
            UserError: as `sample`, at once.
        """
        return stream_text(
            self._sampled_model,
            self.tokenizer,
            prompt,
            tokens=tokens,
            sampling=sampling or SamplingConfig(),
            stop=stop,
        )

    def _restored(self, kernels: Kernels) -> GPT:
        separator = self.recipe.data.separator(self.tokenizer)
        model = build(self.recipe.model, self.recipe.seed, self._device, kernels, separator=separator)
        restore(self.checkpoint, model)
        return model

    def _reading(self, data: Path | str | None) -> Reading:
        """What the run was trained on, or other text of its tokenizer."""
        reading = Reading.open(self.recipe.data if data is None else self.recipe.with_data(data).data)
        if not self.tokenizer.extends(reading.tokenizer):
            raise UserError(
                f"{reading.corpora[0].path} was prepared with tokenizer {reading.tokenizer.name}, the run with another "
                f"({self.tokenizer.name}); prepare the text with --tokenizer {self.path}"
            )
        return reading

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
    require_text(path)
    if not is_a("run", path):
        raise is_no(path, "run")
    checkpoint = open_latest(path / "checkpoints")
    if checkpoint is None and (path / "finished.json").exists():
        raise UserError(f"{path} is finished, but its weights were dropped; a study with keep = true leaves them")
    if checkpoint is None:
        raise UserError(
            f"{path} has no checkpoint yet; let it train until its first one, with the command that began it"
        )
    tokenizer = Tokenizer.load(path / "tokenizer.json")
    if tokenizer.identity != read_identity(path).get("tokenizer"):
        raise UserError(
            f"{path / 'tokenizer.json'} is not the tokenizer that the run was trained with; restore it from a copy"
        )
    return Run(path, read_recipe(path), tokenizer, read_execution(path), checkpoint, read_result(path, checkpoint))


def train(
    recipe: Recipe | str | Path,
    *,
    data: Path | str | None = None,
    out: Path | str | None = None,
    started: float | None = None,
    stop_after: str | None = None,
    accept_changes: bool = False,
) -> Run:
    """Train a recipe, or go on with the run that lies in `out`; under torchrun, on all its ranks together.

    Args:
        recipe: a Recipe, or a name or path that `Recipe.load` takes.
        data: the corpus, or a folder that holds those of the recipe's mixture; the recipe's own unless given.
        out: the run's folder; `runs/NAME` unless given.
        started: reading of the monotonic clock from which a time budget counts; now unless given.
        stop_after: a time, as `230m`: save and stop then, to go on in another sitting.
        accept_changes: go on with a recipe whose optimizer, schedule, batch, budget or data differ from the run's.

    Returns:
        The run, finished or stopped. On ranks but the first its tensors and metrics are not at hand.

    Raises:
        UserError: anything the person can mend; nothing is lost or half-written.
        DivergedError: losses are no numbers any more, or spike again and again.
        LostRankError: another rank died or hangs.
    """
    clock = Clock(time.monotonic() if started is None else started)
    asked = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    if data is not None:
        asked = asked.with_data(data)
    require_text(Path(out or ""))
    path = Path(out) if out is not None else Path("runs") / (asked.name or "run")

    stop_in = stop_seconds(stop_after)
    with (
        stop_on_signals(None if stop_in is None else max(0.0, stop_in - clock.elapsed())) as stop,
        ExitStack() as meeting,
    ):
        with stop.at_once():
            ranks = meeting.enter_context(joined(asked.parallel))
            recipe = Recipe.model_validate(ranks.share(lambda: _with_origin(asked, path).model_dump(mode="json")))
            reading = _open_together(recipe, ranks)
        recipe = recipe.model_copy(update={"data": reading.placed})
        require_fitting_tokenizer(recipe, reading.tokenizer)
        outcome = sit(Sitting(path, recipe, reading, clock, stop, ranks, accept_changes))
    if ranks.first:
        return load(path)
    return Run(path, recipe, reading.tokenizer, outcome.execution, outcome.checkpoint, outcome.result)


def _with_origin(recipe: Recipe, out: Path) -> Recipe:
    """The recipe with the trained model that it begins from found; a run in `out` that has a checkpoint needs none.

    Raises:
        UserError: there is none, or it is not the one that it was.
    """
    if recipe.init is None:
        return recipe
    kept = read_recipe(out).init if list_checkpoints(out / "checkpoints") and (out / "recipe.toml").exists() else None
    # What a run began from may have been trained on since.
    found = kept if kept is not None and recipe.init.asks_for(kept) else recipe.init.found()
    return recipe.model_copy(update={"init": found})


def _open_together(recipe: Recipe, ranks: Ranks) -> Reading:
    """What the recipe reads, verified by one rank of each node.

    Raises:
        UserError: a corpus is missing, damaged, or not the same on every rank.
    """
    reading = Reading.open(recipe.data, Corpus.open if ranks.local_rank == 0 else Corpus.open_unverified)
    ranks.wait()
    of_first = ranks.share(lambda: [corpus.identity for corpus in reading.corpora])
    for corpus, identity in zip(reading.corpora, of_first, strict=True):
        if corpus.identity != identity:
            raise UserError(
                f"{corpus.path} is not the corpus that the first rank has under this name; "
                "copy that one to every machine"
            )
    return reading
