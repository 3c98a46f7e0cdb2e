"""Work in a thread of its own."""

import threading
import time
from collections.abc import Iterator

import pytest

from daybreak.playground.batches import in_batches


def test_everything_comes_once_and_in_order() -> None:
    batches = list(in_batches(lambda: iter(range(5000)), threading.Event(), seconds=0.001))
    assert [item for batch in batches for item in batch] == list(range(5000))
    assert all(batches)


def test_what_comes_slowly_comes_at_once_and_what_comes_fast_in_few_batches() -> None:
    def slow() -> Iterator[int]:
        for item in range(3):
            time.sleep(0.05)
            yield item

    assert list(in_batches(slow, threading.Event(), seconds=0.001)) == [[0], [1], [2]]
    assert len(list(in_batches(lambda: iter(range(1000)), threading.Event(), seconds=5))) == 1


def test_the_work_stays_in_one_thread_which_is_not_the_callers() -> None:
    def where() -> Iterator[int]:
        for _ in range(20):
            yield threading.get_ident()

    seen = {item for batch in in_batches(where, threading.Event(), seconds=0) for item in batch}
    assert len(seen) == 1
    assert threading.get_ident() not in seen


@pytest.mark.parametrize("how", ["stop", "close"])
def test_the_work_ends_behind_the_item_at_hand(how: str) -> None:
    made = 0

    def long() -> Iterator[int]:
        nonlocal made
        for made in range(1, 1001):
            yield made
            time.sleep(0.002)

    stop, before = threading.Event(), threading.active_count()
    batches = in_batches(long, stop, seconds=0)
    first = next(batches)
    if how == "stop":
        stop.set()
        rest = [item for batch in batches for item in batch]
        assert [*first, *rest] == list(range(1, made + 1))  # what was made is handed on
    else:
        batches.close()  # type: ignore[attr-defined]
    at_end = made
    assert at_end < 500
    time.sleep(0.05)
    assert made == at_end
    assert threading.active_count() == before


def test_what_the_work_raises_is_raised_here_behind_what_it_made() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("by design")

    batches = in_batches(failing, threading.Event(), seconds=0)
    assert next(batches) == [1]
    with pytest.raises(ZeroDivisionError, match="by design"):
        next(batches)
