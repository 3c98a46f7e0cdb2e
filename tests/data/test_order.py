"""The order of windows: a permutation, whatever its size, and a different one each epoch."""

import random
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

from daybreak.data.hashing import splitmix64
from daybreak.data.order import Order, permute


def epoch(order: Order, number: int) -> list[int]:
    return order.windows_at(number * order.windows, order.windows).tolist()


def test_every_epoch_visits_every_window_once() -> None:
    for windows in (*range(1, 201), *random.Random(0).sample(range(201, 100_000), 8), 65_536, 65_537):
        order = Order(windows, seed=windows)
        for number in (0, 1, 5):
            assert sorted(epoch(order, number)) == list(range(windows)), windows


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [tuple(epoch(Order(100, seed), number)) for seed in range(20) for number in range(20)]
    assert len(set(orders)) == 400


def test_the_order_is_not_the_order_of_the_text() -> None:
    order = epoch(Order(1000, seed=1), 0)
    followed = sum(after == before + 1 for before, after in pairwise(order))
    assert followed < 10  # 1 is expected
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.15


def test_the_same_windows_come_in_any_chunking() -> None:
    order = Order(97, seed=3)
    whole = order.windows_at(0, 1000).tolist()
    generator = random.Random(0)
    place = 0
    while place < 900:
        count = generator.randrange(1, 100)
        assert order.windows_at(place, count).tolist() == whole[place : place + count]
        place += count
    assert [int(order.windows_at(place, 1)[0]) for place in range(300)] == whole[:300]
    assert order.windows_at(5, 0).tolist() == []


def test_two_orders_of_the_same_seed_are_the_same() -> None:
    assert epoch(Order(1000, seed=7), 3) == epoch(Order(1000, seed=7), 3)


def test_the_order_never_changes_between_versions() -> None:
    """These windows were visited by runs that must go on as they began."""
    assert Order(10, seed=1337).windows_at(0, 20).tolist() == [
        2,
        8,
        4,
        6,
        3,
        7,
        1,
        0,
        5,
        9,
        0,
        4,
        2,
        3,
        6,
        7,
        8,
        9,
        1,
        5,
    ]


def test_ten_trillion_windows_are_permuted_in_constant_memory() -> None:
    windows = 10**13
    order = Order(windows, seed=1)
    tracemalloc.start()
    try:
        images = np.concatenate([order.windows_at(place, 2000) for place in (0, windows - 1000, 5 * windows // 2)])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    first_epoch, second_epoch = images[:3000], images[3000:4000]
    assert len(set(first_epoch.tolist())) == 3000
    assert len(set(second_epoch.tolist())) == 1000
    assert int(images.max()) < windows
    assert int(images.max()) > windows * 0.99
    assert int(images.min()) < windows * 0.01
    assert peak < 2_000_000


@pytest.mark.parametrize("size", [2, 3, 10, 64, 100])
def test_the_first_window_is_spread_over_all_windows(size: int) -> None:
    draws = 3000
    counts = np.bincount([int(Order(size, seed).windows_at(0, 1)[0]) for seed in range(draws)], minlength=size)
    chi_squared = float(((counts - draws / size) ** 2 / (draws / size)).sum())
    assert chi_squared < (size - 1) + 5 * (2 * (size - 1)) ** 0.5  # five standard deviations


def test_small_permutations_all_occur_about_equally_often() -> None:
    draws = 3000
    found: dict[tuple[int, ...], int] = {}
    for key in range(draws):
        order = tuple(permute(np.arange(3, dtype=np.uint64), 3, splitmix64(key)).tolist())
        found[order] = found.get(order, 0) + 1
    assert len(found) == 6
    chi_squared = sum((count - draws / 6) ** 2 / (draws / 6) for count in found.values())
    assert chi_squared < 5 + 5 * 10**0.5


def test_permute_leaves_its_argument_alone() -> None:
    indices = np.arange(50, dtype=np.uint64)
    permute(indices, 50, 1)
    assert indices.tolist() == list(range(50))


@pytest.mark.parametrize(("value", "expected"), [(0, 0xE220A8397B1DCDAF), (0x9E3779B97F4A7C15, 0x6E789E6AA1B965F4)])
def test_splitmix64_gives_the_published_sequence(value: int, expected: int) -> None:
    """The first two outputs of Vigna's splitmix64.c from seed 0."""
    assert splitmix64(value) == expected
    assert splitmix64(np.asarray([value], dtype=np.uint64)).tolist() == [expected]
