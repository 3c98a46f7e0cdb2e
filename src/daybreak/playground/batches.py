"""Pieces as they are made in a thread of their own, handed on some at a time.

A page's server takes each step of a generator in another of its threads, and modes of torch such as `no_grad` belong
to a thread; so the model runs in one thread from beginning to end.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVar, final

T = TypeVar("T")
SECONDS_A_BATCH = 0.05  # twenty pictures a second look like flowing text


@final
@dataclass(frozen=True)
class _End:
    """Behind the last item; with what the work raised, if it did."""

    error: Exception | None = None


def in_batches(make: Callable[[], Iterator[T]], stop: Event, seconds: float = SECONDS_A_BATCH) -> Iterator[list[T]]:
    """What `make()` yields, in its order, in batches of what came within so many seconds.

    Closing this iterator, or setting `stop`, ends the work behind the item that is being made.

    Raises:
        Exception: whatever the work raised, behind what it had made.
    """
    made: SimpleQueue[tuple[T] | _End] = SimpleQueue()
    abandoned = Event()

    def work() -> None:
        end = _End()
        try:
            for item in make():
                made.put((item,))
                if stop.is_set() or abandoned.is_set():
                    break
        except Exception as error:
            end = _End(error)
        finally:
            made.put(end)

    thread = Thread(target=work, name="daybreak-continuation")
    thread.start()
    try:
        end = None
        while end is None:
            batch, end = _batch(made, seconds)
            if batch:
                yield batch
        if end.error is not None:
            raise end.error
    finally:
        abandoned.set()
        thread.join()


def _batch(made: "SimpleQueue[tuple[T] | _End]", seconds: float) -> tuple[list[T], _End | None]:
    """What comes within so many seconds, at least one item; and the end, if it came."""
    batch: list[T] = []
    until = time.monotonic() + seconds
    found = made.get()
    while isinstance(found, tuple):
        batch += found
        try:
            found = made.get(timeout=max(0.0, until - time.monotonic()))
        except Empty:
            return batch, None
    return batch, found
