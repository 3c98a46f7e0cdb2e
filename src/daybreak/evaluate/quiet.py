"""Other people's programs, kept from talking over ours."""

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO, final


@final
class Nowhere(io.TextIOBase):
    """A stream that forgets what is written to it."""

    def write(self, text: str) -> int:
        return len(text)


@contextmanager
def quiet() -> Iterator[TextIO]:
    """Swallow what is printed and logged inside; errors still come through.

    Yields:
        Standard error as it was, for what we ourselves have to say meanwhile.
    """
    ours, disabled = sys.stderr, logging.root.manager.disable
    nowhere = Nowhere()
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield ours
    finally:
        logging.disable(disabled)


@contextmanager
def variables(**values: str) -> Iterator[None]:
    """Environment variables that hold inside."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
