"""Loss, perplexity and bits per byte on a stream of tokens, every token counted once."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from daybreak.configuration import Configuration
from daybreak.data.shards import TokenStream
from daybreak.data.windows import IGNORED
from daybreak.distributed import ALONE, Ranks
from daybreak.duration import Duration, IntervalField, Unit
from daybreak.hardware import PrecisionName, autocast, is_out_of_memory
from daybreak.model.gpt import GPT


@final
class EvaluationConfig(Configuration):
    """Validation while training, always on the same part of the split.

    Attributes:
        every: how often; the end of a run is always evaluated.
        tokens: about how many; rounded up to whole rows, spread evenly over the split.
    """

    every: IntervalField = Duration(5, Unit.PERCENT)
    tokens: int = Field(default=100_000, gt=0)


@final
@dataclass(frozen=True)
class Loss:
    """A mean loss and what it was measured on.

    Attributes:
        loss: nats a token.
        tokens: targets that were predicted.
        bytes: bytes of text that those targets stand for.
        sources: of a mixture, the loss on each of its corpora, by name.
    """

    loss: float
    tokens: int
    bytes: int
    sources: Mapping[str, float] = field(default_factory=dict)

    @property
    def perplexity(self) -> float:
        return perplexity(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """Bits to encode a byte of text, whatever the tokenizer; NaN if the tokens stand for no text."""
        return self.loss * self.tokens / (math.log(2) * self.bytes) if self.bytes else math.nan

    @property
    def figures(self) -> dict[str, Any]:
        """What a record of it holds."""
        by_source = {"sources": dict(self.sources)} if self.sources else {}
        return {"loss": self.loss, "bits_per_byte": self.bits_per_byte, **by_source}


def perplexity(loss: float) -> float:
    """e to the mean loss, in nats; infinite where a float does not reach."""
    return math.inf if loss > 700 else math.exp(loss)


def in_halves(at_once: Callable[[Tensor, Tensor], float]) -> Callable[[Tensor, Tensor], float]:
    """A sum over a batch's rows as one that fits: a batch that does not fit into memory is halved until it does.

    Args:
        at_once: the sum over inputs and targets, (B, T) each.
    """

    def fitted(inputs_BT: Tensor, targets_BT: Tensor) -> float:
        try:
            return at_once(inputs_BT, targets_BT)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(inputs_BT) == 1:
                raise
        halves = zip(inputs_BT.tensor_split(2), targets_BT.tensor_split(2), strict=True)
        return math.fsum(fitted(inputs, targets) for inputs, targets in halves)

    return fitted


def row_starts(tokens: int, length: int, sample: int | None = None) -> list[int]:
    """Where rows of `length` begin that cover a stream once; of a sample, rows spread evenly over it.

    Every token but the stream's first is a target of exactly one row; the last row may be short.
    """
    starts = range(0, tokens - 1, length)
    if sample is None or sample >= tokens - 1:
        return list(starts)
    chosen = min(len(starts), -(-sample // length))
    return [starts[index * len(starts) // chosen] for index in range(chosen)]


@final
@dataclass(frozen=True)
class Validation:
    """A fixed set of rows of a stream, to be measured again and again.

    Attributes:
        every: how often a training run measures it; None for the end alone.
        starts: where the rows begin.
        length: tokens in a row.
        batch: rows at once; all batches have one shape, so that a compiled model meets no new one.
        token_bytes: bytes of text that each id stands for, (vocab_size,).
    """

    every: Duration | None
    stream: TokenStream
    starts: Sequence[int]
    length: int
    batch: int
    token_bytes: npt.NDArray[np.int64]
    device: torch.device
    precision: PrecisionName

    @torch.no_grad()
    def measure(
        self,
        model: GPT,
        advance: Callable[[int], None] = lambda _: None,
        *,
        ranks: Ranks = ALONE,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> Loss | None:
        """The mean loss over the rows, each predicted from its own tokens alone.

        Ranks share the batches, and the result is the same to the bit for any number of them.

        Args:
            advance: told how many tokens each batch held.
            interrupted: asked before each batch.

        Returns:
            None if it was interrupted, on any rank.
        """
        batches = -(-len(self.starts) // self.batch)
        nll, tokens, size = [0.0] * batches, 0, 0
        for first in range(0, batches, ranks.count):
            if ranks.any(interrupted()):
                return None
            index = first + ranks.rank  # behind the last batch, an empty one keeps ranks together
            inputs_BT, targets_BT = self._batch(index)
            loss = self._nll(model, torch.from_numpy(inputs_BT), torch.from_numpy(targets_BT), ranks)
            if index < batches:
                nll[index] = loss
            counted = targets_BT[targets_BT != IGNORED]
            tokens += counted.size
            size += int(self.token_bytes[counted].sum())
            advance(counted.size)
        total_tokens, total_size, *nll = ranks.sums([tokens, size, *nll])
        return Loss(math.fsum(nll) / total_tokens, int(total_tokens), int(total_size))

    def first_rows(self, count: int) -> Tensor:
        """Inputs of its first rows, (count, T), again from the first on where it has fewer; short ones end in zeros."""
        starts = [self.starts[row % len(self.starts)] for row in range(count)]
        inputs_BT, _ = replace(self, starts=starts, batch=count)._batch(0)
        return torch.from_numpy(inputs_BT).to(self.device)

    def _nll(self, model: GPT, inputs_BT: Tensor, targets_BT: Tensor, ranks: Ranks) -> float:
        """Sum of a batch's losses; in halves where it must, but for ranks, which pass through the model together."""

        def at_once(inputs_BT: Tensor, targets_BT: Tensor) -> float:
            with autocast(self.device, self.precision):
                return float(model(inputs_BT.to(self.device), targets_BT.to(self.device)).item())

        return (at_once if ranks.count > 1 else in_halves(at_once))(inputs_BT, targets_BT)

    def _batch(self, index: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Inputs and targets (B, T), short rows and batches filled up with targets to ignore."""
        inputs_BT = np.zeros((self.batch, self.length), dtype=np.int64)
        targets_BT = np.full((self.batch, self.length), IGNORED, dtype=np.int64)
        for row, start in enumerate(self.starts[index * self.batch : (index + 1) * self.batch]):
            tokens = self.stream.read(start, min(start + self.length + 1, len(self.stream)))
            inputs_BT[row, : len(tokens) - 1] = tokens[:-1]
            targets_BT[row, : len(tokens) - 1] = tokens[1:]
        return inputs_BT, targets_BT


@final
@dataclass(frozen=True)
class MixtureValidation:
    """The validation splits of several corpora, measured one behind the other: a mean over all their tokens alike.

    Attributes:
        every: how often a training run measures it; None for the end alone.
        sources: by the name of the corpus.
    """

    every: Duration | None
    sources: Mapping[str, Validation]

    def measure(
        self,
        model: GPT,
        advance: Callable[[int], None] = lambda _: None,
        *,
        ranks: Ranks = ALONE,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> Loss | None:
        """As `Validation.measure`, with the loss of each source."""
        found: dict[str, Loss] = {}
        for name, validation in self.sources.items():
            loss = validation.measure(model, advance, ranks=ranks, interrupted=interrupted)
            if loss is None:
                return None
            found[name] = loss
        tokens = sum(each.tokens for each in found.values())
        return Loss(
            loss=math.fsum(each.loss * each.tokens for each in found.values()) / tokens,
            tokens=tokens,
            bytes=sum(each.bytes for each in found.values()),
            sources={name: each.loss for name, each in found.items()},
        )
