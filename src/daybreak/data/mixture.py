"""Mixtures: several corpora read as one text, each as often as a recipe says, without a copy of any token."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self, final

import numpy as np
from pydantic import Field, model_validator

from daybreak.configuration import Configuration
from daybreak.data.hashing import Words, splitmix64
from daybreak.data.order import Order
from daybreak.errors import UserError


@final
class MixtureSource(Configuration):
    """One corpus of a mixture, and how much of it a pass of the mixture takes.

    Attributes:
        corpus: its folder.
        epochs: how often a pass reads it, as 1.0 or 0.5; 1 unless a share is given.
        share: its part of a pass, beside the shares of the others; of none of them epochs may be given then.
    """

    corpus: str
    epochs: float | None = Field(default=None, gt=0, le=1e6)
    share: float | None = Field(default=None, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _one_epoch(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("epochs") is None and value.get("share") is None:
            return {**value, "epochs": 1.0}
        return value

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        if self.epochs is not None and self.share is not None:
            raise ValueError(f"data.mixture: {self.corpus} has both epochs and share; give one of them")
        return self


def quotas(sources: Sequence[MixtureSource], windows: Sequence[int]) -> tuple[int, ...]:
    """How many windows of each source a pass takes, to the nearest whole one, halves up.

    Shares are scaled together until the source that would run out first is read once.

    Args:
        windows: that each source has.

    Raises:
        UserError: less than one of some source.
    """
    # As they are written: 0.1 is a tenth, which no float is.
    amounts = [Fraction(repr(source.share or source.epochs)) for source in sources]
    if sources[0].share is None:
        exact = [amount * size for amount, size in zip(amounts, windows, strict=True)]
    else:
        scale = min(size / amount for amount, size in zip(amounts, windows, strict=True))
        exact = [amount * scale for amount in amounts]
    taken = tuple(math.floor(each + Fraction(1, 2)) for each in exact)
    for source, quota, size in zip(sources, taken, windows, strict=True):
        if quota < 1:
            asked = f"epochs = {source.epochs}" if source.share is None else f"share = {source.share}"
            raise UserError(
                f"data.mixture: {asked} of {source.corpus}, which has {size:,} windows, is less than one a pass; "
                "give it more, or leave it out"
            )
    return taken


@final
@dataclass(frozen=True)
class MixtureOrder:
    """Which window stands at each place of a run over a mixture: computed in constant memory, as `Order` is.

    A permutation of a pass's K places, another one in each pass, says of which source i the window is, and that it is
    number j of the k_i that the pass takes of it. It is then the source's window number g = pass · k_i + j in the whole
    run, and stands at g mod n_i of the permutation of the source's epoch g // n_i. So half an epoch goes on into the
    unseen half in the next pass, and a new epoch has another order.

    Attributes:
        sizes: windows of each source, n_i. They are numbered through, one source behind the other.
        quotas: how many of them a pass takes, k_i.
        seed: chooses all the permutations.
    """

    sizes: tuple[int, ...]
    quotas: tuple[int, ...]
    seed: int

    @property
    def windows(self) -> int:
        """In a pass, K."""
        return sum(self.quotas)

    def windows_at(self, first: int, count: int) -> Words:
        """The windows at places first … first + count - 1 of a run, (count,)."""
        places = np.arange(first, first + count, dtype=np.uint64)
        passes = places // np.uint64(self.windows)
        slots = Order(self.windows, self.seed).at(places)
        chosen = np.empty_like(places)
        slot = number = 0  # the source's first
        for index, (size, quota) in enumerate(zip(self.sizes, self.quotas, strict=True)):
            mine = (slots >= slot) & (slots < slot + quota)
            read = passes[mine] * np.uint64(quota) + (slots[mine] - np.uint64(slot))
            chosen[mine] = Order(size, _seed_of(self.seed, index)).at(read) + np.uint64(number)
            slot, number = slot + quota, number + size
        return chosen


def _seed_of(seed: int, source: int) -> int:
    """A source's own, by its place in the mixture."""
    return splitmix64(splitmix64(seed) ^ splitmix64(source))
