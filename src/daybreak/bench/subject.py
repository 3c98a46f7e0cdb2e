"""A recipe made ready to be timed: a model, its optimizers, and rows to train on.

Shape legend: R rows, T tokens of a row.
"""

import time
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from daybreak.compose import build_learner
from daybreak.data.batches import Rows
from daybreak.data.shards import Corpus
from daybreak.distributed import ALONE
from daybreak.errors import UserError
from daybreak.hardware import apply_precision, autocast
from daybreak.memory import peak_bytes
from daybreak.model.gpt import GPT
from daybreak.recipe import Recipe
from daybreak.training.compiling import compile_blocks, keep_compiled_code
from daybreak.training.execution import Execution
from daybreak.training.optimizer import set_learning_rates, unscale_and_clip

_MOST_COMPILED = 64  # models in one process; training compiles one


@final
@dataclass(frozen=True)
class Timing:
    """Seconds of the parts of a step.

    Attributes:
        gradient: of one micro-batch, forward and backward.
        update: clip and optimizer, once a step.
    """

    gradient: float
    update: float


@final
@dataclass(frozen=True)
class Subject:
    """What is timed.

    Attributes:
        tokens: rows with a successor of their last token, (R, T + 1).
    """

    recipe: Recipe
    execution: Execution
    device: torch.device
    model: GPT
    optimizers: tuple[torch.optim.Optimizer, ...]
    tokens: Tensor

    def rows(self, count: int) -> Rows:
        """The first of the rows."""
        tokens_RT = self.tokens[:count].to(self.device)
        seeds_R = torch.arange(count, device=self.device)
        return Rows(tokens_RT[:, :-1], tokens_RT[:, 1:], seeds_R, count * self.recipe.row_length, last=True)

    def gradient(self, rows: Rows) -> None:
        """Forward and backward, as the training loop does."""
        with autocast(self.device, self.execution.precision):
            nll = self.model(rows.inputs, rows.targets, rows.dropout_seeds)
        (nll / rows.counted).backward()

    def update(self) -> None:
        """Clip and step, as the training loop does; the weights barely move."""
        unscale_and_clip(self.model, self.recipe.optimizer.clip, scale=1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.model.zero_grad(set_to_none=True)

    def time(self, rows: Rows) -> Timing:
        """Of one micro-batch and one update."""
        apply_precision(self.execution.precision)
        began = self._now()
        self.gradient(rows)
        between = self._now()
        self.update()
        return Timing(between - began, self._now() - between)

    def compile(self) -> None:
        """For the execution's micro-batch.

        Raises:
            UserError: it cannot be done here.
        """
        keep_compiled_code()
        torch._dynamo.config.recompile_limit = _MOST_COMPILED
        rows, execution = self.rows(self.execution.micro_batch), self.execution
        if not compile_blocks(self.model, [rows], self.device, execution.precision, recompute=execution.recompute):
            raise UserError("the blocks do not compile here; add execution.compile=false")

    def peak_bytes(self, rows: Rows) -> int:
        """Weights, optimizer state and the most that a step of these rows adds."""
        lasting = [parameter.detach() for parameter in self.model.parameters()]
        lasting += [value for each in self.optimizers for state in each.state.values() for value in state.values()]
        return sum(tensor.nbytes for tensor in lasting) + peak_bytes(lambda: self.time(rows), self.device)

    def _now(self) -> float:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()


def make_subject(recipe: Recipe, execution: Execution, tokens_RT: Tensor) -> Subject:
    """Built as a run builds it, but not compiled.

    Raises:
        UserError: it does not fit into memory.
    """
    device = execution.apply()
    separator = 0 if recipe.data.packing == "documents" else None  # it takes as long whichever token parts documents
    model, optimizers = build_learner(recipe, execution, device, ALONE, separator)
    set_learning_rates(optimizers, 1e-6)  # speed is measured, not learning
    return Subject(recipe, execution, device, model, optimizers, tokens_RT)


def some_tokens(recipe: Recipe, corpus: Corpus | None, rows: int, vocab_size: int) -> Tensor:
    """Rows of a corpus, as many as it has, repeated; without one, random tokens below `vocab_size`: (R, T + 1)."""
    length = recipe.row_length + 1
    if corpus is None:
        return torch.randint(vocab_size, (rows, length), generator=torch.Generator().manual_seed(recipe.seed))
    stream = corpus.stream("train")
    if len(stream) < length:
        raise UserError(
            f"{corpus.path} has {len(stream):,} tokens, fewer than one row of {length}; "
            "give a larger corpus, or leave out --data"
        )
    starts = range(0, len(stream) - length + 1, recipe.row_length)
    read = [torch.from_numpy(stream.read(start, start + length)) for start in starts[:rows]]
    return torch.stack([read[row % len(read)] for row in range(rows)])
