"""Rows that share a cache: each sees its own columns alone, wherever they lie."""

import pytest
import torch

from daybreak.model.cache import Cache
from daybreak.model.shared_cache import SharedCache

LAYERS, HEADS, SIZE = 2, 3, 4


def read(length: int, rows: int = 1) -> Cache:
    """A cache in which the key at position p is p + 1 everywhere, and the value ten times that."""
    cache = Cache(LAYERS, length)
    keys = torch.arange(1.0, length + 1)[:, None].expand(rows, HEADS, length, SIZE)
    for layer in range(LAYERS):
        cache.extend(layer, keys, 10 * keys)
    cache.recent(torch.arange(length).expand(rows, length), 3)
    cache.advance(length)
    return cache


def seen(cache: SharedCache, rows: int) -> list[list[int]]:
    """The keys that the next token of each row would see, its own of -1 last."""
    new = torch.full((rows, HEADS, 1, SIZE), -1.0)
    keys, values = cache.extend(1, new, 10 * new)
    torch.testing.assert_close(values, 10 * keys)
    columns = cache.seen(1)
    mask = torch.ones(rows, keys.shape[2], dtype=torch.bool) if columns is None else columns[:, 0, 0]
    return [keys[row, 0, mask[row], 0].long().tolist() for row in range(rows)]


def places(cache: SharedCache) -> list[int] | None:
    at = cache.places(1)
    return None if at is None else at.flatten().tolist()


def test_rows_that_come_and_go_see_their_own_columns() -> None:
    cache = SharedCache(LAYERS, capacity=12, rows=4)
    cache.append(read(3, rows=2), torch.tensor([0, 1]))
    assert seen(cache, 2) == [[1, 2, 3, -1]] * 2
    assert places(cache) is None
    cache.append(read(5), torch.tensor([0, 0]))  # longer: those that are here move to the right
    assert seen(cache, 4) == [[1, 2, 3, -1]] * 2 + [[1, 2, 3, 4, 5, -1]] * 2
    assert places(cache) == [3, 3, 5, 5]
    cache.drop(0)
    assert seen(cache, 3) == [[1, 2, 3, 4, 5, -1], [1, 2, 3, -1], [1, 2, 3, 4, 5, -1]]
    cache.drop(2)
    cache.drop(0)
    assert seen(cache, 1) == [[1, 2, 3, -1]]
    assert (cache.length, places(cache)) == (5, [3])
    cache.shift(-2)
    assert seen(cache, 1) == [[1, 2, 3, -1]]
    assert (cache.length, places(cache)) == (3, None)
    cache.drop(0)
    cache.append(read(1), torch.tensor([0]))
    assert seen(cache, 1) == [[1, -1]]
    assert cache.length == 1


def test_last_tokens_go_with_their_rows() -> None:
    cache = SharedCache(LAYERS, capacity=12, rows=3)
    cache.append(read(5), torch.tensor([0]))
    cache.append(read(1), torch.tensor([0]))
    before = cache.recent(torch.tensor([[7], [8]]), 3)
    assert before is not None
    assert before[0].tolist() == [2, 3, 4]
    assert before[1, -1].item() == 0  # the only one it has
    cache.advance(1)
    cache.drop(0)
    again = cache.recent(torch.tensor([[9]]), 3)
    assert again is not None
    assert again[0, -2:].tolist() == [0, 8]


def test_several_tokens_at_once_are_an_error() -> None:
    cache = SharedCache(LAYERS, capacity=12, rows=4)
    cache.append(read(3), torch.tensor([0]))
    with pytest.raises(ValueError, match="one token at a time, not by 2"):
        cache.places(2)


def test_more_than_there_is_room_for_is_an_error() -> None:
    cache = SharedCache(LAYERS, capacity=3, rows=1)
    cache.append(read(3), torch.tensor([0]))
    with pytest.raises(ValueError, match="do not fit into a cache of 3"):
        seen(cache, 1)
