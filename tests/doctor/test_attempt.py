"""A process of its own: how it ends is told, and nothing of it is left."""

import sys
import time
from pathlib import Path

import pytest

from daybreak.doctor.attempt import attempt

ERROR = "echo Traceback; echo 'a.b.SomeError: it is so'; echo; echo 'advice: try it'; exit 1"


@pytest.mark.parametrize(
    ("script", "patience", "problem"),
    [
        ("exit 0", 20.0, None),
        ("kill -SEGV $$", 20.0, "it crashed (SIGSEGV)"),
        (ERROR, 20.0, "it is so"),
        ("exit 1", 20.0, "it said nothing"),
        ("sleep 60 & echo $! > pid; sleep 60", 1.0, "it did not end within 1 s"),
        ("sleep 60 & echo $! > pid", 20.0, None),
    ],
    ids=["well", "crash", "error", "silent", "hang", "child"],
)
def test_a_process_ends_and_leaves_none_behind(
    script: str, patience: float, problem: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/bash\ncd {tmp_path}\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    outcome = attempt("ranks", patience=patience)
    assert outcome.problem == problem
    assert outcome.seconds < 10
    if (tmp_path / "pid").exists():
        deadline = time.monotonic() + 5  # it has been killed, and ends when its turn comes
        while is_running(int((tmp_path / "pid").read_text())) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_running(int((tmp_path / "pid").read_text()))


def is_running(process: int) -> bool:
    """Whether a process is there and is no zombie that waits for its parent."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
