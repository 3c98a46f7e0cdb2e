"""The key/value cache: what attention has already seen, so that each new token costs one position."""

from typing import Protocol, Self, final

import torch
from torch import Tensor


class KeyValues(Protocol):
    """What the model asks of a cache: `Cache`, or `SharedCache` of rows that begin at different columns.

    Shape legend: B batch, T new tokens, S columns of keys and values; a column holds one position of each row.

    Attributes:
        length: columns that are filled.
        capacity: columns that there is room for.
    """

    length: int
    capacity: int

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store new positions of a layer behind `length`; return all of that layer's keys and values."""

    def recent(self, tokens_BT: Tensor, count: int) -> Tensor | None:
        """The `count` tokens seen before these, (B, up to count); None if there were none. Remembers these."""

    def advance(self, positions: int) -> None:
        """Count positions that every layer has stored."""

    def places(self, count: int) -> Tensor | None:
        """Positions of the next `count` tokens, (B, T); None where they are `length` and on in every row."""

    def seen(self, count: int) -> Tensor | None:
        """Which columns belong to a row, with `count` more to come, (B, 1, 1, S); None where all do."""


@final
class Cache:
    """Keys and values of every layer, filled from position 0 up to `capacity`; a column is a position.

    Shapes: keys and values are (B, G, S, K): G key/value heads, S positions, K head size.
    """

    def __init__(self, layers: int, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._keys: list[Tensor | None] = [None] * layers
        self._values: list[Tensor | None] = [None] * layers
        self._tokens_BS: Tensor | None = None

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store new positions of a layer behind `length`; return all of that layer's keys and values."""
        stored_keys, stored_values = self._keys[layer], self._values[layer]
        if stored_keys is None or stored_values is None:
            B, G, _, K = keys.shape
            stored_keys = self._keys[layer] = keys.new_empty(B, G, self.capacity, K)
            stored_values = self._values[layer] = torch.empty_like(stored_keys)
        new, end = keys.shape[2], self.length + keys.shape[2]
        if end > self.capacity:
            raise ValueError(f"{end} positions do not fit into a cache of {self.capacity}")
        stored_keys.narrow(2, self.length, new).copy_(keys)
        stored_values.narrow(2, self.length, new).copy_(values)
        return stored_keys.narrow(2, 0, end), stored_values.narrow(2, 0, end)

    def recent(self, tokens_BT: Tensor, count: int) -> Tensor | None:
        """The `count` tokens seen before these, (B, up to count); None if there were none. Remembers these."""
        before = self._tokens_BS
        seen = tokens_BT if before is None else torch.cat((before, tokens_BT), dim=1)
        self._tokens_BS = seen[:, -count:]
        return before

    def repeated(self, counts: Tensor, capacity: int) -> Self:
        """A cache of `capacity` in which row i of this one comes counts[i] times."""
        copy = type(self)(len(self._keys), capacity)
        copy.length = self.length
        for mine, its in ((self._keys, copy._keys), (self._values, copy._values)):
            for layer, stored in enumerate(mine):
                if stored is not None:
                    rows = stored.narrow(2, 0, self.length).repeat_interleave(counts, dim=0)
                    its[layer] = rows.new_empty(*rows.shape[:2], capacity, rows.shape[3])
                    its[layer].narrow(2, 0, self.length).copy_(rows)  # type: ignore[union-attr]
        if self._tokens_BS is not None:
            copy._tokens_BS = self._tokens_BS.repeat_interleave(counts, dim=0)
        return copy

    def stored(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer."""
        keys, values = self._keys[layer], self._values[layer]
        assert keys is not None and values is not None  # noqa: PT018 - the model has filled every layer
        return keys.narrow(2, 0, self.length), values.narrow(2, 0, self.length)

    @property
    def last_tokens(self) -> Tensor | None:
        """What `recent` would give, as many as there are."""
        return self._tokens_BS

    def advance(self, positions: int) -> None:
        """Count positions that every layer has stored."""
        self.length += positions

    def places(self, count: int) -> None:
        """All rows begin at the first column."""

    def seen(self, count: int) -> None:
        """All columns belong to every row."""
