"""A process of its own for what might crash or hang."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import final

from daybreak.doctor.finding import in_a_line

_ERROR = re.compile(r"^[\w.]+(?:Error|Exception|Missing|Failed): (.+)", flags=re.MULTILINE)


@final
@dataclass(frozen=True)
class Attempt:
    """How a process ended: `problem` is None where all went well, `log` what it wrote."""

    problem: str | None
    seconds: float
    log: str


def attempt(*words: str, patience: float = 120.0) -> Attempt:
    """Run `daybreak.doctor.probe`, and leave none of its processes behind."""
    began = time.monotonic()
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "daybreak.doctor.probe", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, whose every process can be ended
        )
        code = None
        try:
            code = process.wait(patience)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with suppress(OSError):  # all have ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        seconds = time.monotonic() - began
        output.seek(0)
        log = output.read()
    if code is None:
        return Attempt(f"it did not end within {patience:.0f} s", seconds, log)
    if code < 0:
        return Attempt(f"it crashed ({signal.Signals(-code).name})", seconds, log)
    return Attempt(_last_error(log) if code else None, seconds, log)


def _last_error(log: str) -> str:
    """What the last traceback says; advice may follow it."""
    said = _ERROR.findall(log) or log.strip().splitlines() or ["it said nothing"]
    return in_a_line(said[-1])
