"""Who asked for a stop: each visitor stops what is theirs, the end of the program stops all."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock
from typing import final


@final
class Stops:
    """The continuations that are being made, by visitor."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._running: dict[str, list[Event]] = {}
        self._closed = False

    @contextmanager
    def of(self, visitor: str) -> Iterator[Event]:
        """An event that is set once the visitor, or the program, is to stop what runs in this block."""
        event = Event()
        with self._lock:
            self._running.setdefault(visitor, []).append(event)
            if self._closed:
                event.set()
        try:
            yield event
        finally:
            with self._lock:
                mine = self._running[visitor]
                mine.remove(event)
                if not mine:
                    del self._running[visitor]

    def stop(self, visitor: str) -> None:
        """Stop what this visitor asked for."""
        with self._lock:
            for event in self._running.get(visitor, []):
                event.set()

    def close(self) -> None:
        """Stop everything, now and from now on."""
        with self._lock:
            self._closed = True
            for events in self._running.values():
                for event in events:
                    event.set()
