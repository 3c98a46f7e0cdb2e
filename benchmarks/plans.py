"""Whether plans come true: memory and time of `daybreak plan`, and of the run that then is made.

python benchmarks/plans.py --wikipedia data/wikipedia --shakespeare data/shakespeare     # eight recipes, 10 minutes

The first is prepared with --tokenizer bpe:4096, the second with chars. Each run is planned just before it is made.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from journal import Journal

RESULTS = Path(__file__).parent / "results" / "plans.jsonl"
# Recipe, which corpus, settings: a budget of about a minute each.
CASES = (
    ("daybreak-small", "wikipedia", ("budget=150 steps",)),
    ("daybreak-d1", "wikipedia", ("budget=300 steps",)),
    ("daybreak-d4", "wikipedia", ("budget=20 steps",)),
    ("demo", "wikipedia", ("budget=500 steps",)),
    ("gpt2-tiny", "wikipedia", ("budget=80 steps", "model.vocab_size=4096", "data.tokenizer=bpe:4096")),
    ("shakespeare-char-cpu", "shakespeare", ("budget=1000 steps",)),
    ("daybreak-char", "shakespeare", ("budget=400 steps",)),
    ("shakespeare-char", "shakespeare", ("budget=15 steps", "schedule.warmup=10%")),
)


def perform(recipe: str, corpus: Path, settings: tuple[str, ...], out: Path) -> dict[str, Any]:
    """The planned figures beside those that came."""
    planned = json.loads(
        subprocess.run(
            [sys.executable, "-m", "daybreak", "plan", recipe, *settings, "--data", str(corpus), "--json"],
            capture_output=True,
            check=True,
        ).stdout
    )
    figures = {each["name"]: each["value"] for each in planned["figures"]}
    began = time.monotonic()
    words = [sys.executable, "-m", "daybreak", "train", recipe, *settings, "--data", str(corpus)]
    child = subprocess.Popen([*words, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - began
    if status:
        raise SystemExit(f"{recipe} ended with status {status}")
    checkpoint = max((out / "checkpoints").iterdir())
    return {
        "recipe": recipe,
        "seconds": [figures["time"], round(seconds, 1)],
        "bytes": [figures["memory in all"], usage.ru_maxrss * 1024],
        "checkpoint": [figures["checkpoint"], sum(file.stat().st_size for file in checkpoint.iterdir())],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wikipedia", type=Path, required=True)
    parser.add_argument("--shakespeare", type=Path, required=True)
    parser.add_argument("--only", nargs="+", help="recipes")
    asked = parser.parse_args()
    print(
        "| recipe | time, planned | came | | memory, planned | came | |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    for recipe, corpus, settings in CASES:
        if asked.only and recipe not in asked.only:
            continue
        with tempfile.TemporaryDirectory(prefix="daybreak-plans-") as folder:
            record = perform(recipe, getattr(asked, corpus), settings, Path(folder) / "run")
        record = Journal(RESULTS).add("plans", **record)
        (time_planned, time_came), (bytes_planned, bytes_came) = record["seconds"], record["bytes"]
        print(
            f"| `{recipe}` | {time_planned:.1f} s | {time_came:.1f} s | {time_planned / time_came - 1:+.0%} "
            f"| {bytes_planned / 1e6:,.0f} MB | {bytes_came / 1e6:,.0f} MB | {bytes_planned / bytes_came - 1:+.0%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
