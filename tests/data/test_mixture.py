"""Mixtures: every source exactly as often as asked, in any pass, whatever the number of windows."""

import time
import tracemalloc
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from daybreak.data.hashing import splitmix64
from daybreak.data.mixture import MixtureOrder, MixtureSource, quotas
from daybreak.errors import UserError


def in_epochs(*epochs: float) -> list[MixtureSource]:
    return [MixtureSource(corpus=f"c{number}", epochs=each) for number, each in enumerate(epochs)]


def in_shares(*shares: float) -> list[MixtureSource]:
    return [MixtureSource(corpus=f"c{number}", share=each) for number, each in enumerate(shares)]


def passes(order: MixtureOrder, count: int) -> list[list[tuple[int, int]]]:
    """Of each pass its windows, as (source, window of the source)."""
    ends = np.cumsum(order.sizes)
    numbers = order.windows_at(0, count * order.windows).tolist()
    sources = np.searchsorted(ends, numbers, side="right").tolist()
    starts = (ends - np.asarray(order.sizes)).tolist()
    read = [(source, number - starts[source]) for source, number in zip(sources, numbers, strict=True)]
    return [read[start : start + order.windows] for start in range(0, len(read), order.windows)]


def of_source(windows: Sequence[tuple[int, int]], source: int) -> list[int]:
    return [window for each, window in windows if each == source]


@settings(max_examples=30)
@given(
    sources=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 90)), min_size=1, max_size=5),
    seed=st.integers(0, 2**64),
)
def test_every_window_is_read_as_often_as_any_other_but_for_the_epoch_that_is_under_way(
    sources: list[tuple[int, int]], seed: int
) -> None:
    """Counted: behind P passes, P k // n times every window, and once more as many of them as are left over."""
    order = MixtureOrder(tuple(size for size, _ in sources), tuple(quota for _, quota in sources), seed)
    read: list[tuple[int, int]] = []
    for number, windows in enumerate(passes(order, 4), start=1):
        read += windows
        for source, (size, quota) in enumerate(sources):
            assert len(of_source(windows, source)) == quota
            times, more = divmod(number * quota, size)
            counts = Counter(dict.fromkeys(range(size), 0))
            counts.update(of_source(read, source))
            assert sorted(counts.values()) == [times] * (size - more) + [times + 1] * more
    assert {source for source, _ in read} == set(range(len(sources)))


def test_half_an_epoch_goes_on_into_the_half_that_was_not_seen() -> None:
    order = MixtureOrder((100, 60), (50, 60), seed=3)
    halves = [set(of_source(windows, 0)) for windows in passes(order, 6)]
    assert [len(half) for half in halves] == [50] * 6
    for first, second in zip(halves[::2], halves[1::2], strict=True):
        assert first | second == set(range(100))
    assert len({frozenset(half) for half in halves}) == 6  # each epoch is cut elsewhere


def test_another_epoch_has_another_order_and_no_two_sources_have_one() -> None:
    order = MixtureOrder((50, 50), (50, 50), seed=3)
    orders = [tuple(of_source(windows, source)) for windows in passes(order, 5) for source in (0, 1)]
    assert len(set(orders)) == 10
    turns = {tuple(source for source, _ in windows) for windows in passes(order, 5)}
    assert len(turns) == 5


def test_a_pass_mixes_its_sources_evenly() -> None:
    order = MixtureOrder((9000, 1000), (9000, 1000), seed=1)
    (windows,) = passes(order, 1)
    tenths = [sum(source for source, _ in windows[start : start + 1000]) for start in range(0, 10_000, 1000)]
    deviation = (1000 * 0.1 * 0.9 * 0.9) ** 0.5  # of a tenth drawn without putting back
    assert max(abs(each - 100) for each in tenths) < 4 * deviation
    assert len(set(tenths)) > 3


def test_the_same_windows_come_in_any_chunking() -> None:
    order = MixtureOrder((13, 7), (13, 4), seed=5)
    whole = order.windows_at(0, 200).tolist()
    assert [int(order.windows_at(place, 1)[0]) for place in range(200)] == whole
    assert order.windows_at(30, 100).tolist() == whole[30:130]
    assert order.windows_at(7, 0).tolist() == []


def test_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(MixtureOrder((10, 10), (10, 5), seed).windows_at(0, 15).tolist()) for seed in range(50)}
    assert len(orders) == 50


def test_the_order_of_a_mixture_never_changes_between_versions() -> None:
    """These windows were visited by runs that must go on as they began."""
    visited = [4, 1, 3, 6, 0, 8, 5, 2, 4, 0, 2, 1, 7, 9, 5, 3]
    assert MixtureOrder((6, 4), (6, 2), seed=1337).windows_at(0, 16).tolist() == visited


@pytest.mark.parametrize(
    ("sources", "windows", "taken"),
    [
        (in_epochs(1.0, 1.0, 0.5, 1.0, 1.0), (30, 6, 20, 4, 10), (30, 6, 10, 4, 10)),
        (in_epochs(0.5, 2.0, 1.5), (7, 7, 3), (4, 14, 5)),  # halves up: 3.5 and 4.5
        (in_epochs(0.3, 0.3), (15, 10**13), (5, 3 * 10**12)),  # 4.5, and not 15 times the float below 0.3
        (in_epochs(1e-3), (500,), (1,)),
        (in_shares(0.5, 0.5), (100, 30), (30, 30)),
        (in_shares(3, 1), (100, 100), (100, 33)),
        (in_shares(1, 1, 2), (10**13, 7, 10**13), (7, 7, 14)),
        (in_shares(0.2, 0.8), (10, 1000), (10, 40)),
    ],
)
def test_quotas_by_hand(sources: list[MixtureSource], windows: tuple[int, ...], taken: tuple[int, ...]) -> None:
    assert quotas(sources, windows) == taken


@given(st.lists(st.tuples(st.integers(1000, 10**13), st.integers(1, 100)), min_size=1, max_size=6))
def test_shares_read_the_source_that_runs_out_first_once_and_keep_their_proportions(
    sources: list[tuple[int, int]],
) -> None:
    sizes = [size for size, _ in sources]
    taken = quotas(in_shares(*(share for _, share in sources)), sizes)
    assert any(quota == size for quota, size in zip(taken, sizes, strict=True))
    assert all(quota <= size for quota, size in zip(taken, sizes, strict=True))
    whole, shares = sum(taken), sum(share for _, share in sources)
    for quota, (_, share) in zip(taken, sources, strict=True):
        assert abs(quota * shares - share * whole) <= shares * len(sources)  # half a window each


@pytest.mark.parametrize(
    ("sources", "named"),
    [(in_epochs(1, 0.01), "epochs = 0.01 of c1.*40 windows"), (in_shares(100, 1), "share = 1.0 of c1.*40 windows")],
)
def test_less_than_one_window_a_pass_is_refused(sources: list[MixtureSource], named: str) -> None:
    with pytest.raises(UserError, match=named):
        quotas(sources, [30, 40])


@pytest.mark.parametrize("amount", [{"epochs": 0}, {"share": -1}, {"epochs": float("inf")}, {"epochs": 1, "share": 1}])
def test_an_amount_that_cannot_be_is_refused(amount: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(amount))):
        MixtureSource.model_validate({"corpus": "c", **amount})


def permuted(index: int, size: int, key: int) -> int:
    """As `order.permute`, of one index, in Python's own integers."""
    half = max(1, -(-(size - 1).bit_length() // 2))
    while True:
        left, right = index >> half, index & ((1 << half) - 1)
        for number in range(6):
            left, right = right, left ^ (splitmix64(right ^ splitmix64(key ^ number)) & ((1 << half) - 1))
        index = (left << half) | right
        if index < size:
            return index


def window_at(place: int, sizes: Sequence[int], taken: Sequence[int], seed: int) -> int:
    """The rule as it is stated, in Python's own integers."""

    def shuffled(seed: int, epoch: int, position: int, size: int) -> int:
        return permuted(position, size, splitmix64(splitmix64(seed) ^ epoch))

    number, slot = divmod(place, sum(taken))
    slot = shuffled(seed, number, slot, sum(taken))
    source = 0
    while slot >= taken[source]:
        slot -= taken[source]
        source += 1
    epoch, position = divmod(number * taken[source] + slot, sizes[source])
    own_seed = splitmix64(splitmix64(seed) ^ splitmix64(source))
    return sum(sizes[:source]) + shuffled(own_seed, epoch, position, sizes[source])


def test_ten_trillion_windows_are_mixed_in_constant_memory_and_time() -> None:
    sizes = (6 * 10**12, 10**12, 3 * 10**12, 7)
    taken = quotas(in_epochs(1.0, 1.0, 0.5, 2.0), sizes)
    order = MixtureOrder(sizes, taken, seed=1)
    in_a_pass = order.windows
    assert in_a_pass == 6 * 10**12 + 10**12 + 3 * 10**12 // 2 + 14
    places = [0, in_a_pass - 1000, 5 * in_a_pass // 2, 100_000 * in_a_pass - 500, 900_000 * in_a_pass + 12_345]
    tracemalloc.start()
    try:
        began = time.perf_counter()
        found = [order.windows_at(place, 2000) for place in places]
        seconds = time.perf_counter() - began
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
    assert seconds < 2
    for place, windows in zip(places, found, strict=True):
        expected = [window_at(place + index, sizes, taken, 1) for index in range(0, 2000, 40)]
        assert windows[::40].tolist() == expected
    shares = np.histogram(np.concatenate(found), bins=[0, *np.cumsum(sizes).tolist()])[0] / 10_000
    assert shares[:3] == pytest.approx([quota / in_a_pass for quota in taken[:3]], abs=0.02)
