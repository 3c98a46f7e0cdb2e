"""How the person calls this program."""

import os
import shutil
import sys
from pathlib import Path


def command() -> str:
    """`daybreak` where the shell finds it; else the path that it was called by."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{Path(sys.executable).name} -m daybreak"
    found = shutil.which("daybreak")
    found_here = found is not None and called.exists() and called.samefile(found)
    return "daybreak" if found_here or not called.exists() else os.path.relpath(called)
