"""`daybreak train auto` against the hand-tuned `daybreak-small` at the same budget, by turns.

python benchmarks/dial.py --corpus data/novels                # prepared with --tokenizer bpe:4096; 3 minutes a run
python benchmarks/dial.py --report
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import daybreak
from journal import Journal
from processes import our_command, run

RESULTS = Path(__file__).parent / "results" / "dial.jsonl"
CONTESTANTS = ("auto", "daybreak-small")


def perform(recipe: str, corpus: Path, budget: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train, and measure the loss over the whole validation split."""
    out = folder / f"{recipe}-{seed}"
    words = our_command("train", recipe, f"budget={budget}", f"seed={seed}", "--data", str(corpus), "--out", str(out))
    took = run(words, folder / f"{recipe}-{seed}.log").seconds
    ended = daybreak.load(out)
    return {
        "corpus": corpus.name,
        "contestant": recipe,
        "recipe": ended.recipe.name,
        "budget": budget,
        "seed": seed,
        "seconds": round(took, 1),
        "steps": ended.spent.steps,
        "bits_per_byte": round(ended.evaluate().bits_per_byte, 4),
    }


def report() -> None:
    print("| text | budget | seed | contestant | recipe | steps | bits a byte |")
    print("| --- | --- | --- | --- | --- | ---: | ---: |")
    for each in Journal(RESULTS).records("dial"):
        print(
            f"| {each['corpus']} | {each['budget']} | {each['seed']} | {each['contestant']} | {each['recipe']} "
            f"| {each['steps']:,} | {each['bits_per_byte']:.4f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, nargs="+")
    parser.add_argument("--budget", default="3m")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="print what was measured")
    asked = parser.parse_args()
    if asked.report:
        report()
        return
    if asked.corpus is None:
        parser.error("--corpus is missing")
    for seed in range(1, asked.seeds + 1):
        for corpus in asked.corpus:
            for recipe in CONTESTANTS:
                with tempfile.TemporaryDirectory(prefix="daybreak-dial-") as folder:
                    record = perform(recipe, corpus, asked.budget, seed, Path(folder))
                record = Journal(RESULTS).add("dial", **record)
                print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
