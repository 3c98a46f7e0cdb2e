"""Contestants run in processes of their own, timed from outside."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 0.005
_LONGEST_START = 600.0
_ABSOLUTE = re.compile(r"(^|=)/(?:[^/]+/)+")


class FailedError(Exception):
    """A contestant's process failed; its words and the end of its output are the message."""


@dataclass(frozen=True)
class Finished:
    """A process that ended well: its wall-clock seconds, and all it printed."""

    seconds: float
    output: str
    command: str


def run(words: Sequence[str], log: Path, *, cwd: Path | None = None) -> Finished:
    """Run a command to its end; its output lies in `log`.

    Raises:
        FailedError: it ended with an error.
    """
    with log.open("w+", encoding="utf-8") as file:
        began = time.monotonic()
        code = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, cwd=cwd, check=False).returncode
        seconds = time.monotonic() - began
    output = log.read_text(encoding="utf-8", errors="replace")
    if code:
        raise FailedError(f"{shown(words)} ended with code {code}:\n{output[-2000:]}")
    return Finished(seconds, output, shown(words))


def seconds_until(words: Sequence[str], log: Path, file: Path, text: str) -> float:
    """Seconds from a command's start until `file` holds `text`; the command is ended then.

    Raises:
        FailedError: it ended before, or took longer than ten minutes.
    """
    with log.open("w", encoding="utf-8") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            words, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
        try:
            while not (file.is_file() and text in file.read_text(encoding="utf-8", errors="replace")):
                if process.poll() is not None or time.monotonic() - began > _LONGEST_START:
                    raise FailedError(f"{shown(words)} did not get as far as {text!r}:\n{log.read_text()[-2000:]}")
                time.sleep(_POLL_SECONDS)
            return time.monotonic() - began
        finally:
            process.kill()
            process.wait()


def our_command(*words: str) -> list[str]:
    """The command line of this project."""
    return [sys.executable, "-m", "daybreak", *words]


def peer_script(script: str, *words: str) -> list[str]:
    """The command line of a script in `benchmarks/peers`."""
    return [sys.executable, str(Path(__file__).parent / "peers" / script), *words]


def shown(words: Sequence[str]) -> str:
    """A command for people: of absolute paths their last part, since they mean nothing elsewhere."""
    here = str(Path(__file__).parent.parent)
    words = ["python" if word == sys.executable else word.replace(f"{here}/", "") for word in words]
    return shlex.join(_ABSOLUTE.sub(r"\1.../", word) for word in words)
