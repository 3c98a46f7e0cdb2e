"""How the person calls this program."""

import os
import shutil
import sys
from pathlib import Path


def command() -> str:
    """`daybreak` where the shell finds it; else by its path, or by Python's own."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{_as_typed(Path(sys.executable))} -m daybreak"
    return _as_typed(called)


def _as_typed(program: Path) -> str:
    """The shortest way to name a program: alone if the shell finds it, else from here, else in full."""
    found = shutil.which(program.name)
    if found is not None and Path(found).absolute() == program.absolute():
        return program.name
    return os.path.relpath(program) if program.absolute().is_relative_to(Path.cwd()) else str(program)
