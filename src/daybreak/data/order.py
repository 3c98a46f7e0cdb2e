"""The order of windows: a seeded permutation computed in constant memory.

A Feistel network (Luby and Rackoff 1988) permutes the smallest power of four that holds all
windows; an index that lands outside is sent round again until it lands inside (cycle walking, Black and
Rogaway 2002). So the window at any place is known at once, for 10 windows or 10^13.
"""

from dataclasses import dataclass
from typing import final

import numpy as np

from daybreak.data.hashing import Words, splitmix64

_ROUNDS = 6


@final
@dataclass(frozen=True)
class Order:
    """Every window once an epoch, each epoch in another order.

    Attributes:
        windows: how many windows there are.
        seed: chooses the order.
    """

    windows: int
    seed: int

    def windows_at(self, first: int, count: int) -> Words:
        """The windows at places first … first + count - 1 of a run, (count,)."""
        return self.at(np.arange(first, first + count, dtype=np.uint64))

    def at(self, places: Words) -> Words:
        """The windows at these places, in any order, each in its epoch."""
        epochs = places // np.uint64(self.windows)
        positions = places % np.uint64(self.windows)
        chosen = np.empty_like(places)
        for epoch in np.unique(epochs):
            now = epochs == epoch
            chosen[now] = permute(positions[now], self.windows, splitmix64(splitmix64(self.seed) ^ int(epoch)))
        return chosen


def permute(indices: Words, size: int, key: int) -> Words:
    """Images of `indices` under the permutation of [0, size) that `key` chooses."""
    half = max(1, -(-(size - 1).bit_length() // 2))
    mask = np.uint64((1 << half) - 1)
    keys = [np.uint64(splitmix64(key ^ number)) for number in range(_ROUNDS)]

    def encrypt(values: Words) -> Words:
        left, right = values >> np.uint64(half), values & mask
        for round_key in keys:
            left, right = right, left ^ (splitmix64(right ^ round_key) & mask)
        return (left << np.uint64(half)) | right

    images = encrypt(indices)
    outside = images >= size
    while outside.any():
        images[outside] = encrypt(images[outside])
        outside = images >= size
    return images
