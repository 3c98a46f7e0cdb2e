"""Windows -> the rows of a step -> micro-batches of tensors, fetched one step ahead.

What a step holds depends on the run's place alone. Ranks and micro-batches only split its rows.
Shape legend: R rows of a step, B rows of a micro-batch, T tokens of a row, W tokens of a window.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from daybreak.data.hashing import Words, splitmix64
from daybreak.data.mixture import MixtureOrder
from daybreak.data.order import Order
from daybreak.data.windows import IGNORED, Windows
from daybreak.errors import UserError

_ORDERED_AT_ONCE = 4096  # windows


@final
@dataclass(frozen=True)
class _Cut:
    """Rows of one length that each window of a step is cut into: from token `start` of it on, `pieces` of them."""

    start: int
    length: int
    pieces: int

    @property
    def end(self) -> int:
        return self.start + self.pieces * self.length


@final
@dataclass(frozen=True)
class _Wanted:
    """A step to fetch: from `place` windows on, in rows of `length` tokens."""

    place: int
    windows: int
    length: int
    micro_batch: int


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
    """The steps of a run.

    Attributes:
        windows: in a pass.
        micro_batch: full rows in a micro-batch; a smaller one makes the same steps from the next on.

    Args:
        windows: what is read.
        order: which of them stands at each place of the run; a pass has at least one.
        length: tokens in a full row, T; a window is cut into rows that stay in its step.
        windows_per_step: windows that make the smallest step, of which every one is a multiple.
        micro_batch: full rows in a micro-batch, B; divides those of a rank. Smaller ones make the same steps.
        seed: chooses dropout.
        device: where tensors go.
        rank, ranks: which contiguous share of each step's rows to yield.
        counted_per_row: how many targets the loss counts of a row of so many tokens; all unless given.

    Raises:
        UserError: the sizes do not divide.
    """

    def __init__(
        self,
        windows: Windows,
        order: Order | MixtureOrder,
        *,
        length: int,
        windows_per_step: int,
        micro_batch: int,
        seed: int,
        device: torch.device,
        rank: int = 0,
        ranks: int = 1,
        counted_per_row: Callable[[int], int] = int,
    ) -> None:
        window = windows.window
        rows = windows_per_step * (window // length)
        if window % length:
            raise UserError(f"data.window = {window} is not a multiple of the row length {length}")
        if rows % (ranks * micro_batch):
            raise UserError(f"{rows} rows a step do not divide into {ranks} ranks x micro-batches of {micro_batch}")
        self.windows = order.windows
        self.windows_per_step = windows_per_step
        self.micro_batch = micro_batch
        self._windows, self._order, self._window, self._length = windows, order, window, length
        self._device, self._seed = device, seed
        self._rank, self._ranks = rank, ranks
        self.rows_per_rank = rows // ranks
        self._counted_per_row = counted_per_row
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="daybreak-batches")
        self._known: tuple[int, Words] = (0, np.empty(0, dtype=np.uint64))  # the reader's: a place, and windows from it
        self._ahead: tuple[_Wanted, Future[list[Rows]]] | None = None

    def step(self, place: int, *, windows: int | None = None, length: int | None = None) -> Iterator[Rows]:
        """The micro-batches of the step that begins at `place` windows.

        Args:
            windows: in the step; `windows_per_step` unless stated.
            length: tokens in a row; full rows unless stated. Where it does not divide a window, what remains of each
                is a shorter row; those come last, in micro-batches of their own.
        """
        wanted = _Wanted(place, windows or self.windows_per_step, length or self._length, self.micro_batch)
        for rows in self._fetch(wanted):
            yield replace(
                rows,
                inputs=self._on_device(rows.inputs),
                targets=self._on_device(rows.targets),
                dropout_seeds=self._on_device(rows.dropout_seeds),
            )

    def shapes(self, place: int, lengths: Sequence[int]) -> list[Rows]:
        """A micro-batch of each shape that steps in rows of these lengths have; the last length's full rows last."""
        found: dict[tuple[int, ...], Rows] = {}
        for length in lengths:
            for rows in self.step(place, length=length):
                found.setdefault(tuple(rows.inputs.shape), rows)
        return list(found.values())

    def close(self) -> None:
        self._reader.shutdown(wait=True, cancel_futures=True)

    def _cuts(self, length: int) -> Iterator[_Cut]:
        pieces, rest = divmod(self._window, length)
        yield _Cut(0, length, pieces)
        if rest:
            yield _Cut(pieces * length, rest, 1)

    def _micro_batch_of(self, cut: _Cut, micro_batch: int) -> int:
        """The most of its rows that divide every step's and hold no more tokens than a micro-batch of full rows."""
        rows = self.windows_per_step * cut.pieces // self._ranks
        return largest_divisor(rows, max(1, micro_batch * self._length // cut.length))

    def _fetch(self, wanted: _Wanted) -> list[Rows]:
        """A step's micro-batches, read while the step before it was computed; the next one is read from now on."""
        ahead = self._ahead
        current = ahead[1] if ahead and ahead[0] == wanted else self._reader.submit(self._prepare, wanted)
        rows = current.result()
        following = replace(wanted, place=wanted.place + wanted.windows)  # one that then turns out larger is read anew
        self._ahead = (following, self._reader.submit(self._prepare, following))
        return rows

    def _prepare(self, wanted: _Wanted) -> list[Rows]:
        """The micro-batches of a step, in the CPU's memory."""
        place, windows = wanted.place, wanted.windows
        read = self._windows.read(self._chosen(place, windows))
        firsts = np.arange(place, place + windows, dtype=np.uint64) * np.uint64(self._window)
        cuts = list(self._cuts(wanted.length))
        prepared: list[Rows] = []
        for cut in cuts:
            share = windows * cut.pieces // self._ranks
            mine = slice(self._rank * share, (self._rank + 1) * share)
            inputs_RT = read.inputs[:, cut.start : cut.end].reshape(-1, cut.length)[mine]
            targets_RT = read.targets[:, cut.start : cut.end].reshape(-1, cut.length)[mine]
            counted_R = np.minimum((targets_RT != IGNORED).sum(axis=1), self._counted_per_row(cut.length))
            # A row's number in the run is that of its first token: no two rows share it, whatever their lengths.
            offsets = np.arange(cut.start, cut.end, cut.length, dtype=np.uint64)
            rows: Words = np.add.outer(firsts, offsets).reshape(-1)[mine]
            seeds_R = (splitmix64(rows ^ np.uint64(splitmix64(self._seed))) >> np.uint64(33)).astype(np.int64)
            micro_batch = self._micro_batch_of(cut, wanted.micro_batch)
            for start in range(0, share, micro_batch):
                part = slice(start, start + micro_batch)
                prepared.append(
                    Rows(
                        inputs=_tensor(inputs_RT[part]),
                        targets=_tensor(targets_RT[part]),
                        dropout_seeds=_tensor(seeds_R[part]),
                        counted=int(counted_R[part].sum()),
                        last=cut is cuts[-1] and part.stop == share,
                    )
                )
        return prepared

    def _chosen(self, place: int, windows: int) -> Words:
        """The windows of a step; worked out for many steps at once, since it costs as much for few."""
        first, known = self._known
        if not first <= place <= place + windows <= first + len(known):
            known = self._order.windows_at(place, max(windows, _ORDERED_AT_ONCE))
            first, self._known = place, (place, known)
        return known[place - first : place - first + windows]

    def _on_device(self, tensor: Tensor) -> Tensor:
        if self._device.type == "cpu":
            return tensor  # without torch, which would let the reader's thread have its turn first
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)


def _tensor(array: npt.NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    return next(candidate for candidate in range(min(number, limit), 0, -1) if number % candidate == 0)
