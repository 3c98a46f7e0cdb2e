"""The loss of a text, every token counted once, at one context or at many.

A row of `context` tokens advances by `stride`; of its targets those count that no row before it had. So with a stride
equal to the context rows do not overlap, and with a stride of 1 each token is predicted from as many tokens before it
as there are, up to the context. Sums are divided by the number of targets that were summed.

Shape legend: B rows, T tokens of a row.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from daybreak.data.shards import TokenStream
from daybreak.data.windows import IGNORED
from daybreak.errors import UserError
from daybreak.evaluate.language_model import LanguageModel
from daybreak.evaluate.loss import in_halves, perplexity
from daybreak.evaluate.text import Amount, Text
from daybreak.hardware import free_memory, is_out_of_memory
from daybreak.progress import human_bytes, progress


@final
@dataclass(frozen=True)
class TextLoss:
    """What a text costs a model.

    Attributes:
        nll: sum of -log p of all targets, in nats.
        tokens: targets: those of the text, and an end-of-text behind each document but the last.
        amount: the text that they stand for.
        context: tokens of a row.
        stride: by how many a row advances.
        seconds: it took.
    """

    nll: float
    tokens: int
    amount: Amount
    context: int
    stride: int
    seconds: float

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nll / self.tokens

    @property
    def perplexity(self) -> float:
        return perplexity(self.loss)

    @property
    def word_perplexity(self) -> float:
        """Of words that white space separates, whatever the tokens."""
        return perplexity(self._by(self.amount.words))

    @property
    def bits_per_byte(self) -> float:
        return self._by(self.amount.bytes) / math.log(2)

    @property
    def bits_per_character(self) -> float:
        return self._by(self.amount.characters) / math.log(2)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def figures(self) -> dict[str, Any]:
        """What a record of it holds."""
        return {
            "context": self.context,
            "stride": self.stride,
            "loss": self.loss,
            "perplexity": self.perplexity,
            "word_perplexity": self.word_perplexity,
            "bits_per_byte": self.bits_per_byte,
            "bits_per_character": self.bits_per_character,
            "tokens": self.tokens,
            "tokens_per_second": self.tokens_per_second,
        }

    def _by(self, units: int) -> float:
        return self.nll / units if units else math.nan


@final
@dataclass(frozen=True)
class Unmeasured:
    """A context at which nothing was measured, and why."""

    context: int
    reason: str

    @property
    def figures(self) -> dict[str, Any]:
        """What a record of it holds."""
        return {"context": self.context, "reason": self.reason}


@final
@dataclass(frozen=True)
class Rows:
    """The rows of a stream of tokens.

    Attributes:
        context: tokens of each, T, but for the last, which may be shorter.
        stride: by how many a row advances; at most the context.
    """

    stream: TokenStream
    context: int
    stride: int

    def __len__(self) -> int:
        """As many as it takes to reach the stream's end."""
        return 1 + -(-max(0, len(self.stream) - 1 - self.context) // self.stride)

    def read(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Rows from number `first` on, filled up to one shape: inputs, and targets that count once, (B, T) each."""
        last = min(first + count, len(self))
        T = min(self.context, len(self.stream) - 1)
        inputs_BT = np.zeros((last - first, T), dtype=np.int64)
        targets_BT = np.full((last - first, T), IGNORED, dtype=np.int64)
        for row, number in enumerate(range(first, last)):
            start = number * self.stride
            seen = self.context - self.stride if number else 0  # targets of the row before
            tokens = self.stream.read(start, min(start + T + 1, len(self.stream)))
            inputs_BT[row, : len(tokens) - 1] = tokens[:-1]
            targets_BT[row, seen : len(tokens) - 1] = tokens[1 + seen :]
        return torch.from_numpy(inputs_BT), torch.from_numpy(targets_BT)


def measure(
    model: LanguageModel, texts: Sequence[Text], context: int | None = None, stride: int | None = None
) -> TextLoss:
    """The loss of texts, each of which begins anew.

    Args:
        context: tokens of a row; the model's own unless given.
        stride: by how many a row advances, at most the context; the context unless given.

    Raises:
        UserError: the model cannot see so many tokens, or memory does not suffice for a row.
    """
    context = model.context if context is None else context
    stride = min(stride or context, context)
    reason = _reason_against(model, texts, context)
    if reason is not None:
        raise UserError(f"{model.name} cannot be measured at a context of {context:,}: {reason}")
    return _measure(model, texts, context, stride)


def sweep(
    model: LanguageModel, texts: Sequence[Text], contexts: Sequence[int], stride: int | None = None
) -> Iterator[TextLoss | Unmeasured]:
    """`measure` at each context in turn; one that does not work is said why, and others go on."""
    for context in contexts:
        reason = _reason_against(model, texts, context)
        if reason is not None:
            yield Unmeasured(context, reason)
            continue
        try:
            found: TextLoss | Unmeasured = _measure(model, texts, context, min(stride or context, context))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            found = Unmeasured(context, f"out of memory on {model.device}")
        model.release()
        yield found


def _reason_against(model: LanguageModel, texts: Sequence[Text], context: int) -> str | None:
    if model.limit is not None and context > model.limit:
        return f"its positions end at {model.limit:,}"
    longest = min(context, max(len(text.tokens) - 1 for text in texts))
    needed, free = model.row_bytes(longest), free_memory(model.device)
    if needed > free:
        return f"a row takes {human_bytes(needed)}, {human_bytes(free)} are free"
    return None


def _measure(model: LanguageModel, texts: Sequence[Text], context: int, stride: int) -> TextLoss:
    sum_of_losses, nll = in_halves(partial(_sum_of_losses, model)), list[float]()
    tokens, amount = 0, Amount(0, 0, 0, 0)
    started = time.monotonic()
    with progress(f"context {context:,}", sum(len(text.tokens) - 1 for text in texts), "tok") as advance:
        for text in texts:
            rows, amount = Rows(text.tokens, context, stride), amount + text.amount
            count = max(1, model.tokens_at_once // min(context, len(text.tokens) - 1))
            for first in range(0, len(rows), count):
                inputs_BT, targets_BT = rows.read(first, count)
                passed = int((targets_BT != IGNORED).sum())
                if text.uncounted is not None:
                    targets_BT[targets_BT == text.uncounted] = IGNORED
                tokens += int((targets_BT != IGNORED).sum())
                nll.append(sum_of_losses(inputs_BT, targets_BT))
                advance(passed)
    return TextLoss(math.fsum(nll), tokens, amount, context, stride, max(time.monotonic() - started, 1e-9))


def _sum_of_losses(model: LanguageModel, inputs_BT: Tensor, targets_BT: Tensor) -> float:
    """In nats, in double precision."""
    return float(model.losses(inputs_BT.to(model.device), targets_BT.to(model.device)).cpu().double().sum())
