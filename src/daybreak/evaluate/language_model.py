"""A model with its tokenizer, whoever made it: what text is measured with.

Shape legend: B rows, T tokens of a row, N targets that count.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from daybreak.data.tokenizer import Tokenizer
from daybreak.data.windows import IGNORED
from daybreak.hardware import PrecisionName, autocast
from daybreak.model.gpt import GPT
from daybreak.model.mask import dense_mask
from daybreak.model.position import AlibiPositionConfig

BYTES_PER_FEATURE = 64  # of a block's activations, the widest of which are held at once
BYTES_PER_LOGIT = 12


@dataclass(frozen=True)
class LanguageModel(ABC):
    """What tells the loss of each token of a text.

    Attributes:
        name: for people.
        context: tokens it sees at once where nothing else is asked.
        limit: the most it can see at once; None where there is no end to its positions.
        begin: the id in front of a text's first token.
        end: the id behind a document; the same as `begin` where one token does both.
        tokens_at_once: about how many pass through it together.
        device: where it lies.
    """

    name: str
    context: int
    limit: int | None
    begin: int
    end: int
    tokens_at_once: int
    device: torch.device

    @abstractmethod
    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        """Ids of a text, without any special token; text that spells one is text."""

    @abstractmethod
    def decode(self, ids: npt.NDArray[np.uint32]) -> str:
        """The text of ids."""

    @abstractmethod
    def losses(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """-log p of each target that is not IGNORED, in nats, (N,), predicted from its row's inputs up to there."""

    @abstractmethod
    def row_bytes(self, context: int) -> int:
        """About what a row of so many tokens takes at least."""

    def release(self) -> None:
        """Let go of what is kept for rows of one length."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


@final
@dataclass(frozen=True)
class DaybreakModel(LanguageModel):
    """A GPT of ours. Its softmax is over `model.vocab_size`, padding ids included, as in training."""

    model: GPT
    tokenizer: Tokenizer
    precision: PrecisionName

    @classmethod
    def of(
        cls,
        model: GPT,
        tokenizer: Tokenizer,
        *,
        name: str,
        context: int,
        tokens_at_once: int,
        device: torch.device,
        precision: PrecisionName,
    ) -> "DaybreakModel":
        """A model that begins each document, and separates it from the one before, with end-of-text."""
        return cls(
            name=name,
            context=context,
            limit=model.config.positions,
            begin=tokenizer.end_of_text,
            end=tokenizer.end_of_text,
            tokens_at_once=tokens_at_once,
            device=device,
            model=model,
            tokenizer=tokenizer,
            precision=precision,
        )

    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        return self.tokenizer.encode(text)

    def decode(self, ids: npt.NDArray[np.uint32]) -> str:
        return self.tokenizer.decode(ids.tolist())

    @torch.no_grad()
    def losses(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        counted_N = (targets_BT != IGNORED).flatten().nonzero()[:, 0]
        with autocast(self.device, self.precision):
            x_ND = self.model.features(inputs_BT).flatten(0, 1).index_select(0, counted_N)
            targets_N = targets_BT.flatten().index_select(0, counted_N)
            return self.model.head.losses(x_ND, self.model.embedding.weight, targets_N)

    def row_bytes(self, context: int) -> int:
        config, rows = self.model.config, self.model.kernels.loss_rows or context
        activations = BYTES_PER_FEATURE * config.dim * context
        logits = BYTES_PER_LOGIT * config.vocab_size * min(rows, context)
        return activations + logits + self._mask_bytes(context)

    def release(self) -> None:
        dense_mask.cache_clear()
        super().release()

    def _mask_bytes(self, context: int) -> int:
        """Of the masks of all sights, one of them being made: distances in 8 bytes, then two tables in 4."""
        config = self.model.config
        planes = config.heads if isinstance(config.position, AlibiPositionConfig) else 1
        sights = {block.attention.sight for block in self.model.blocks}  # type: ignore[union-attr]
        windows = [window for window, _ in sights if window]  # type: ignore[misc]
        if planes == 1 and not windows and self.model.separator is None:
            return 0
        return (9 + 4 * planes * (1 + len(sights))) * context**2
