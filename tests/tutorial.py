"""Follow docs/tutorial.md as written, in an empty folder, and time it: python tests/tutorial.py [FOLDER].

What it prints is what the page shows; the installation is left out.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from markdown_blocks import blocks_of

ROOT = Path(__file__).parents[1]
MOST = 600.0  # seconds


def follow(folder: Path) -> float:
    """Run every block of the tutorial in `folder`; seconds that it took."""
    here = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{here}:{os.environ['PATH']}"}
    began = time.monotonic()
    for block in blocks_of(ROOT / "docs" / "tutorial.md"):
        if block.language != "bash" or not block.is_run():
            continue
        print(f"\n$ {block.content.strip()}", flush=True)
        at = time.monotonic()
        done = subprocess.run(["bash", "-c", block.content], cwd=folder, env=environment, check=False)
        print(f"[{time.monotonic() - at:.1f} s, exit code {done.returncode}]", flush=True)
        if done.returncode != (3 if "--stop-after" in block.content else 0):
            raise SystemExit("a block of the tutorial failed")
    return time.monotonic() - began


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as empty:
        folder = Path(sys.argv[1]) if sys.argv[1:] else Path(empty)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise SystemExit(f"{folder} is not empty")
        seconds = follow(folder)
        made = [folder / "runs/mine/report.html", folder / "runs/mine/finished.json"]
        missing = [str(each) for each in made if not each.is_file()]
        print(f"\nThe tutorial took {seconds:.0f} s of {MOST:.0f}; missing: {missing or 'nothing'}")
        if seconds > MOST or missing:
            raise SystemExit(1)
