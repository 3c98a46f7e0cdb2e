"""Windows -> the rows of a step -> micro-batches of tensors, fetched one step ahead.

What a step holds depends on the run's place alone. Ranks and micro-batches only split its rows.
Shape legend: R rows of a step, B rows of a micro-batch, T tokens of a row, W tokens of a window.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self, final

import numpy as np
import numpy.typing as npt
import torch
from pydantic import model_validator
from torch import Tensor

from daybreak.configuration import Configuration, Size
from daybreak.data.hashing import splitmix64
from daybreak.data.order import Order
from daybreak.data.shards import TokenStream
from daybreak.errors import UserError


@final
class MixtureSource(Configuration):
    """One corpus of a mixture and how many epochs of it one pass takes."""

    corpus: str
    epochs: float = 1.0


@final
class DataConfig(Configuration):
    """What a run reads.

    Attributes:
        corpus: the folder of a prepared corpus; `--data` sets it.
        mixture: several corpora instead, with their epochs.
        window: tokens that are shuffled and counted as one unit.
        tokenizer: what the corpus must have been prepared with; none means any that fits.
    """

    corpus: str | None = None
    mixture: tuple[MixtureSource, ...] = ()
    window: Size
    tokenizer: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.corpus is not None and self.mixture:
            raise ValueError("data.corpus and data.mixture exclude each other; give one of them")
        return self


@final
@dataclass(frozen=True)
class Rows:
    """Part of a step.

    Attributes:
        inputs: (B, T).
        targets: their successors, (B, T).
        dropout_seeds: one integer below 2^31 a row, (B,), which seeds dropout and the choice of predicted positions.
        counted: how many of the targets the loss counts.
        last: nothing of the step follows on this rank.
    """

    inputs: Tensor
    targets: Tensor
    dropout_seeds: Tensor
    counted: int
    last: bool


@final
class Batches:
    """The steps of a run over one corpus.

    Args:
        stream: the tokens.
        window: tokens in a window, W.
        length: tokens in a row, T; a window is cut into rows that stay in its step.
        windows_per_step: windows that make a step.
        micro_batch: rows in a micro-batch, B; divides the rows of a rank. Smaller ones make the same steps.
        seed: chooses the order, and dropout.
        device: where tensors go.
        rank, ranks: which contiguous share of each step's rows to yield.
        counted_per_row: how many targets of a row the loss counts; all T unless given.

    Raises:
        UserError: the stream holds no window, or the sizes do not divide.
    """

    def __init__(
        self,
        stream: TokenStream,
        *,
        window: int,
        length: int,
        windows_per_step: int,
        micro_batch: int,
        seed: int,
        device: torch.device,
        rank: int = 0,
        ranks: int = 1,
        counted_per_row: int | None = None,
    ) -> None:
        rows = windows_per_step * (window // length)
        if window % length:
            raise UserError(f"data.window = {window} is not a multiple of the row length {length}")
        if rows % (ranks * micro_batch):
            raise UserError(f"{rows} rows a step do not divide into {ranks} ranks x micro-batches of {micro_batch}")
        self.windows = (len(stream) - 1) // window
        if self.windows < 1:
            raise UserError(
                f"the corpus has {len(stream):,} tokens, fewer than one data.window of {window} and its successor; "
                "use more text or a smaller data.window"
            )
        self.windows_per_step = windows_per_step
        self.tokens_per_step = windows_per_step * window
        self.micro_batch = micro_batch
        self._stream, self._window, self._length = stream, window, length
        self._device, self._seed = device, seed
        self.rows_per_rank = rows // ranks
        self._counted_per_row = length if counted_per_row is None else counted_per_row
        self._mine = slice(rank * self.rows_per_rank, (rank + 1) * self.rows_per_rank)
        self._order = Order(self.windows, seed)
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="daybreak-batches")
        self._ahead: tuple[int, Future[npt.NDArray[np.int64]]] | None = None

    @property
    def micro_batches(self) -> int:
        """In a step, on one rank."""
        return self.rows_per_rank // self.micro_batch

    def step(self, place: int) -> Iterator[Rows]:
        """The micro-batches of the step that begins at `place` windows."""
        windows = self._fetch(place)
        pieces = self._window // self._length
        inputs_RT = windows[:, :-1].reshape(-1, self._length)[self._mine]
        targets_RT = windows[:, 1:].reshape(-1, self._length)[self._mine]
        rows = np.arange(place * pieces, (place + self.windows_per_step) * pieces, dtype=np.uint64)[self._mine]
        seeds_R = (splitmix64(rows ^ np.uint64(splitmix64(self._seed))) >> np.uint64(33)).astype(np.int64)
        for start in range(0, len(inputs_RT), self.micro_batch):
            part = slice(start, start + self.micro_batch)
            yield Rows(
                inputs=self._tensor(inputs_RT[part]),
                targets=self._tensor(targets_RT[part]),
                dropout_seeds=self._tensor(seeds_R[part]),
                counted=len(targets_RT[part]) * self._counted_per_row,
                last=part.stop == len(inputs_RT),
            )

    def close(self) -> None:
        self._reader.shutdown(wait=True, cancel_futures=True)

    def _fetch(self, place: int) -> npt.NDArray[np.int64]:
        ahead = self._ahead
        current = ahead[1] if ahead and ahead[0] == place else self._reader.submit(self._read, place)
        windows = current.result()
        following = place + self.windows_per_step
        self._ahead = (following, self._reader.submit(self._read, following))
        return windows

    def _read(self, place: int) -> npt.NDArray[np.int64]:
        """The windows of a step with their successors, (windows, W + 1)."""
        chosen = self._order.windows_at(place, self.windows_per_step)
        starts = [int(index) * self._window for index in chosen]
        return np.stack([self._stream.read(start, start + self._window + 1) for start in starts])

    def _tensor(self, array: npt.NDArray[np.int64]) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)
