"""Pieces as they are made in a thread of their own, handed on some at a time.

A page's server takes each step of a generator in another of its threads, and modes of torch such as `no_grad` belong to a
thread; so the model runs in one thread from beginning to end.
"""

import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")
SECONDS_A_BATCH = 0.05  # twenty pictures a second look like flowing text


def in_batches(make: Callable[[], Iterator[T]], stop: Event, seconds: float = SECONDS_A_BATCH) -> Iterator[list[T]]:
    """What `make()` yields, in its order, in batches of what came within so many seconds.

    Closing this iterator, or setting `stop`, ends the work behind the item that is being made.

    Raises:
        Exception: whatever the work raised.
    """
    made: SimpleQueue[tuple[T] | Exception | None] = SimpleQueue()
    abandoned = Event()

    def work() -> None:
        try:
            for item in make():
                made.put((item,))
                if stop.is_set() or abandoned.is_set():
                    break
        except Exception as error:
            made.put(error)
        finally:
            made.put(None)

    thread = Thread(target=work, name="daybreak-continuation")
    thread.start()
    try:
        ended = False
        while not ended:
            batch: list[T] = []
            until = time.monotonic() + seconds
            found = made.get()
            while found is not None:
                if isinstance(found, Exception):
                    raise found
                batch += found
                try:
                    found = made.get(timeout=max(0.0, until - time.monotonic()))
                except Empty:
                    break
            else:
                ended = True
            if batch:
                yield batch
    finally:
        abandoned.set()
        thread.join()
