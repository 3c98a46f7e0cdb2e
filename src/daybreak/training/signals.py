"""Asked to stop, by Ctrl-C, termination, or the clock: the first request saves and ends, a second ends at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import final

from daybreak.duration import Duration, Unit, require_positive
from daybreak.errors import Stopped, UserError
from daybreak.progress import say


@final
class StopRequest:
    """Whether somebody asked the run to stop."""

    def __init__(self) -> None:
        self.requested = False
        self._at_once = False

    def request(self, why: str) -> None:
        """Ask; inside `at_once`, in the main thread, this raises Stopped."""
        line = why if self.requested else f"{why}: stopping as soon as what is done can be saved"
        self.requested = True
        with suppress(OSError, RuntimeError):  # nobody reads it any more, or the signal came inside another print
            say(line)
        if self._at_once and threading.current_thread() is threading.main_thread():
            raise Stopped

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A stage in which there is nothing to be saved: a request ends it with Stopped."""
        try:
            self._at_once = True
            if self.requested:
                raise Stopped
            yield
        finally:
            self._at_once = False


@contextmanager
def stop_on_signals(after: float | None = None) -> Iterator[StopRequest]:
    """Turn SIGINT, SIGTERM, and the end of `after` seconds into a request while inside.

    Outside the main thread, as in some notebooks, signals are left as they are.
    """
    stop = StopRequest()
    asked = (signal.SIGINT, signal.SIGTERM)

    def on_signal(number: int, _frame: FrameType | None) -> None:
        for each in asked:
            signal.signal(each, signal.SIG_DFL)
        stop.request(f"{signal.Signals(number).name} (once more ends at once)")

    def on_time(*_: object) -> None:
        stop.request("the time is over")

    if threading.current_thread() is not threading.main_thread():
        timer = threading.Timer(after or 0.0, on_time)
        timer.daemon = True
        if after is not None:
            timer.start()
        try:
            yield stop
        finally:
            timer.cancel()
        return
    before = {number: signal.signal(number, on_signal) for number in asked}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, on_time)
    if after is not None:
        signal.setitimer(signal.ITIMER_REAL, max(after, 1e-3))
    try:
        yield stop
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_seconds(stop_after: str | None) -> float | None:
    """Seconds from its start after which a sitting is to stop.

    Raises:
        UserError: it is no time.
    """
    if stop_after is None:
        return None
    try:
        duration = Duration.parse(stop_after)
    except ValueError as error:
        raise UserError(f"stop_after: {error}") from None
    if duration.unit is not Unit.SECONDS:
        raise UserError(f"stop_after = {duration} is no time; write 3h or 170m")
    return require_positive(duration, "stop_after").amount
