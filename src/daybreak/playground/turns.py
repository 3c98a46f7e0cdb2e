"""One continuation of a run at a time; the others wait in the order in which they came."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition
from typing import final

from daybreak.errors import UserError


@final
class Turns:
    """A line of people before a run.

    Args:
        most_waiting: how many may wait behind the one whose turn it is.
    """

    def __init__(self, most_waiting: int) -> None:
        self._most_waiting = most_waiting
        self._line: list[object] = []
        self._changed = Condition()

    @contextmanager
    def place(self) -> Iterator[Callable[[float], int]]:
        """Stand in line until the end of the block.

        Yields:
            A function that says how many are before, 0 being one's turn; it waits up to so many seconds for a change.

        Raises:
            UserError: too many wait already.
        """
        me = object()
        with self._changed:
            if len(self._line) > self._most_waiting:
                raise UserError(f"{self._most_waiting} wait for this run already; try again in a moment")
            self._line.append(me)

        def before(seconds: float) -> int:
            with self._changed:
                was = self._line.index(me)
                if was:
                    self._changed.wait_for(lambda: self._line.index(me) != was, seconds)
                return self._line.index(me)

        try:
            yield before
        finally:
            with self._changed:
                self._line.remove(me)
                self._changed.notify_all()
