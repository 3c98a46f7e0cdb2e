"""Ctrl-C and termination: the first asks the run to save and stop, the second ends it at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import final

from daybreak.progress import say


@final
class StopRequest:
    """Whether somebody asked the run to stop."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request while inside; does nothing outside the main thread."""
    stop = StopRequest()
    caught = (signal.SIGINT, signal.SIGTERM)

    def request(number: int, _frame: FrameType | None) -> None:
        stop.requested = True
        for each in caught:
            signal.signal(each, signal.SIG_DFL)
        say(f"{signal.Signals(number).name}: finishing this step, then saving; once more ends at once")

    try:
        before = [signal.signal(number, request) for number in caught]
    except ValueError:  # not the main thread, as in some notebooks
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in zip(caught, before, strict=True):
            signal.signal(number, handler)
