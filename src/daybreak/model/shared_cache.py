"""A key/value cache of rows that come and go, and have different lengths."""

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from daybreak.model.cache import Cache


@final
class SharedCache:
    """Rows that go on together, by one token at a time, so that all end at the same column.

    A row of fewer positions begins further to the right; what lies in front of it is not seen. Rows stand behind one
    another in tensors that are made once, so that one that comes or goes moves no more than itself.

    Shapes: keys and values are (R, G, S, K): R rows that there is room for, G key/value heads, S columns, K head size.

    Attributes:
        length: columns that are filled.
        capacity: columns that there is room for.
    """

    def __init__(self, layers: int, capacity: int, rows: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._room = rows
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._layers = layers
        self._tokens_BS: Tensor | None = None
        self._starts: list[int] = []  # the column at which each row begins
        self._next_B1: Tensor | None = None  # the position of each row's next token, unless it is `length` in all

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store new columns of a layer behind `length`; return all of that layer's keys and values."""
        B, new = len(keys), keys.shape[2]
        end = self.length + new
        if end > self.capacity:
            raise ValueError(f"{end} positions do not fit into a cache of {self.capacity}")
        stored_keys, stored_values = self._keys[layer], self._values[layer]
        if self._room > B:
            stored_keys, stored_values = stored_keys.narrow(0, 0, B), stored_values.narrow(0, 0, B)
        stored_keys.narrow(2, self.length, new).copy_(keys)
        stored_values.narrow(2, self.length, new).copy_(values)
        return stored_keys.narrow(2, 0, end), stored_values.narrow(2, 0, end)

    def recent(self, tokens_BT: Tensor, count: int) -> Tensor | None:
        """The `count` tokens seen before these; those in front of a row's first mean nothing. Remembers these."""
        before = self._tokens_BS
        assert before is not None  # rows come with the tokens that they end with
        self._tokens_BS = torch.cat((before, tokens_BT), dim=1)[:, -count:]
        return before[:, max(0, before.shape[1] - self.length) :]

    def advance(self, positions: int) -> None:
        """Count columns that every layer has stored."""
        self.length += positions
        if self._next_B1 is not None:
            self._next_B1 = self._next_B1 + positions

    def places(self, count: int) -> Tensor | None:
        """Positions of the next token of each row, (B, 1); None where they are `length` in every row.

        Raises:
            ValueError: more than one is to come: which columns belong to a row says nothing of their order.
        """
        if count != 1:
            raise ValueError(f"rows go on by one token at a time, not by {count}")
        return self._next_B1

    def seen(self, count: int) -> Tensor | None:
        """Which columns belong to a row, with `count` more to come, (B, 1, 1, S); None where all do."""
        if self._next_B1 is None:
            return None
        columns_S = torch.arange(self.length + count, device=self._next_B1.device)
        return (columns_S >= self.length - self._next_B1)[:, None, None]

    def append(self, cache: Cache, chosen: Tensor) -> None:
        """Take in rows of a cache, so that they end where these do.

        Args:
            chosen: which, (rows,); the same one may come again. There is room for them.
        """
        if not self._starts:
            self.length, self._tokens_BS = cache.length, None
        elif cache.length > self.length:
            self.shift(cache.length - self.length)
        before, after, start = len(self._starts), len(self._starts) + len(chosen), self.length - cache.length
        for layer in range(self._layers):
            rows = [stored.index_select(0, chosen) for stored in cache.stored(layer)]
            if len(self._keys) == layer:
                for stores, like in zip((self._keys, self._values), rows, strict=True):
                    # What is not seen counts nothing only if it is a number.
                    stores.append(like.new_zeros(self._room, like.shape[1], self.capacity, like.shape[3]))
            for store, new in zip((self._keys[layer], self._values[layer]), rows, strict=True):
                store[before:after, :, start : self.length] = new
        if cache.last_tokens is not None:
            self._remember(cache.last_tokens.index_select(0, chosen))
        self._begin([*self._starts, *[start] * len(chosen)])

    def drop(self, row: int) -> None:
        """Let go of a row; the last one takes its place."""
        last = len(self._starts) - 1
        if row != last:
            for stored in (*self._keys, *self._values):
                stored[row, :, : self.length] = stored[last, :, : self.length]
            self._starts[row] = self._starts[last]
        if self._tokens_BS is not None:
            self._tokens_BS[row] = self._tokens_BS[last]
            self._tokens_BS = self._tokens_BS[:last]
        self._begin(self._starts[:last])

    def shift(self, columns: int) -> None:
        """Move every row to the right, or to the left by a negative number, by which none may begin earlier."""
        rows, first = len(self._starts), min(self._starts)
        for stored in (*self._keys, *self._values):
            moved = stored[:rows, :, first : self.length].clone()
            stored[:rows, :, first + columns : self.length + columns] = moved
        self.length += columns
        self._begin([start + columns for start in self._starts])

    def _begin(self, starts: list[int]) -> None:
        self._starts = starts
        lengths = [[self.length - start] for start in starts]
        self._next_B1 = torch.tensor(lengths, device=self._keys[0].device) if any(starts) else None

    def _remember(self, tokens_BS: Tensor) -> None:
        """Add new rows' last tokens, each with nothing in front where others have more."""
        before = self._tokens_BS
        if before is None:
            self._tokens_BS = tokens_BS
            return
        width = max(before.shape[1], tokens_BS.shape[1])
        self._tokens_BS = torch.cat([F.pad(each, (width - each.shape[1], 0)) for each in (before, tokens_BS)])
