"""Progress of long work on standard error: a live bar on a terminal, plain lines in a pipe."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from daybreak.duration import human_seconds

_SECONDS_BETWEEN_LINES = 5.0


def speaks() -> bool:
    """Whether this process talks to the person: of the ranks that a launcher started, the first."""
    return os.environ.get("RANK", "0") == "0"


def say(message: str, stream: TextIO | None = None) -> None:
    """One line for the person, on standard error unless another stream is given."""
    if speaks():
        print(message, file=stream or sys.stderr, flush=True)


@contextmanager
def progress(what: str, total: int | None, unit: str, stream: TextIO | None = None) -> Iterator[Callable[[int], None]]:
    """Show `what` with its rate, and its ETA where the total is known.

    Args:
        stream: to show it on; standard error unless given.

    Yields:
        A function that advances it by an amount of `unit`.
    """
    if speaks() and (stream or sys.stderr).isatty():
        with _bar(what, total, unit, stream) as advance:
            yield advance
    else:
        with _lines(what, total, unit, stream) as advance:
            yield advance


@contextmanager
def _bar(what: str, total: int | None, unit: str, stream: TextIO | None) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]}")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        rate,
        TimeRemainingColumn(),
    )
    console = Console(file=stream, stderr=stream is None)
    redirected = stream is None  # else what is printed meanwhile goes where the caller wants it
    with Progress(*columns, console=console, redirect_stdout=redirected, redirect_stderr=redirected) as bar:
        task = bar.add_task(what, total=total, rate="")

        def advance(amount: int) -> None:
            bar.update(task, advance=amount, rate=f"{_amount(bar.tasks[0].speed or 0.0, unit)}/s")

        yield advance


@contextmanager
def _lines(what: str, total: int | None, unit: str, stream: TextIO | None) -> Iterator[Callable[[int], None]]:
    started = shown = time.monotonic()
    done = 0

    def advance(amount: int) -> None:
        nonlocal done, shown
        done += amount
        now = time.monotonic()
        if now - shown >= _SECONDS_BETWEEN_LINES:
            shown = now
            speed = done / (now - started)
            if total is None:
                say(f"{what}: {_amount(done, unit)}, {_amount(speed, unit)}/s", stream)
            else:
                left = human_seconds(max(0, total - done) / speed)
                say(f"{what}: {done / max(total, 1):.0%}, {_amount(speed, unit)}/s, {left} left", stream)

    yield advance
    seconds = max(time.monotonic() - started, 1e-9)
    say(f"{what}: done in {human_seconds(seconds)}, {_amount(done / seconds, unit)}/s", stream)


def _amount(number: float, unit: str) -> str:
    for scale, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= scale:
            return f"{number / scale:.1f} {prefix}{unit}"
    return f"{number:.0f} {unit}"


def human_bytes(number: int) -> str:
    """`1.50 GB` or `36.0 MB`."""
    return f"{number / 1e9:,.2f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"
