"""Best-fit decreasing fills rows as the textbook's loop over pieces does."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daybreak.data.best_fit import best_fit_decreasing


def loads_by_loop(sizes: list[int], capacity: int) -> list[int]:
    """One piece at a time, the largest first, into the fullest row that still holds it."""
    loads: list[int] = []
    for size in sorted(sizes, reverse=True):
        fitting = [row for row, load in enumerate(loads) if load + size <= capacity]
        if fitting:
            loads[max(fitting, key=lambda row: loads[row])] += size
        else:
            loads.append(size)
    return loads


@given(st.integers(1, 40).flatmap(lambda most: st.tuples(st.just(most), st.lists(st.integers(1, most), min_size=1))))
def test_rows_are_as_full_as_those_of_the_loop_over_pieces(case: tuple[int, list[int]]) -> None:
    capacity, sizes = case
    row_of = best_fit_decreasing(np.asarray(sizes), capacity)
    loads = np.bincount(row_of, weights=sizes).astype(int).tolist()
    assert max(loads) <= capacity
    assert min(loads) > 0
    assert sorted(loads) == sorted(loads_by_loop(sizes, capacity))


def test_many_pieces_fill_rows_to_the_brim() -> None:
    """With as many short pieces as web pages have, next to nothing is left free."""
    generator = random.Random(0)
    sizes = np.asarray([min(1024, 1 + int(generator.lognormvariate(5.5, 1.2))) for _ in range(50_000)])
    row_of = best_fit_decreasing(sizes, 1024)
    rows = int(row_of.max()) + 1
    assert sizes.sum() / (rows * 1024) > 0.9999
    assert np.array_equal(row_of, best_fit_decreasing(sizes, 1024))


@pytest.mark.parametrize("size", [1, 3, 7])
def test_pieces_of_one_size_share_rows_evenly(size: int) -> None:
    row_of = best_fit_decreasing(np.full(100, size), 7)
    each = 7 // size
    assert np.bincount(row_of).tolist()[:-1] == [each] * (-(-100 // each) - 1)
