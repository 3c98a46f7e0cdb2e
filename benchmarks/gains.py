"""What parts are worth at equal time: a recipe with each of some settings against itself, all seeds shown.

python benchmarks/gains.py daybreak-small data/wikipedia --budget 90s --seeds 3 \
    "soft cap: model.head.soft_cap=15" "curriculum: curriculum.lengths=[64,128,256] curriculum.stage=10%"

As many runs go on at once as there are cores, each on one thread, base and variants in turn, so that what else the
machine does falls on all alike. Times are of training alone.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import daybreak
from daybreak.progress import say

_SAME = ("counts=train", "execution.threads=1", "evaluation.every=never", "evaluation.tokens=131072")
_ALSO_SAME = ("checkpoint.every=never", "samples.every=never")


@dataclass(frozen=True)
class Result:
    """Of one run: nats a token on the validation split, and milliseconds of a step."""

    name: str
    seed: int
    loss: float
    tokens: int
    milliseconds: float


def measure(name: str, settings: list[str], seed: int, asked: argparse.Namespace) -> Result:
    """Train once, in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="daybreak-gains-") as folder:
        out = Path(folder) / "run"
        words = [sys.executable, "-m", "daybreak", "train", asked.recipe, f"budget={asked.budget}", f"seed={seed}"]
        words += [*_SAME, *_ALSO_SAME, *settings, "--data", str(asked.corpus), "--out", str(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr[-1000:]}")
        run = daybreak.load(out)
        assert run.final_loss is not None
        milliseconds = statistics.median(record["milliseconds"] for record in run.metrics())
        say(f"{name}, seed {seed}: {run.final_loss:.4f}")
        return Result(name, seed, run.final_loss, run.spent.tokens, milliseconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("variants", nargs="+", metavar="NAME: KEY=VALUE ...")
    parser.add_argument("--budget", default="90s")
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    variants: dict[str, list[str]] = {"base": []}
    for variant in asked.variants:
        name, _, settings = variant.partition(":")
        variants[name] = settings.split()
    jobs = [(name, seed) for seed in range(1, asked.seeds + 1) for name in variants]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda job: measure(job[0], variants[job[0]], job[1], asked), jobs))
    base = {result.seed: result.loss for result in results if result.name == "base"}
    print("| setting | loss by seed | to the base, mean | ms a step | tokens |\n| --- | --- | ---: | ---: | ---: |")
    for name in variants:
        own = [result for result in results if result.name == name]
        losses = ", ".join(f"{result.loss:.4f}" for result in own)
        difference = statistics.mean(result.loss - base[result.seed] for result in own)
        milliseconds = statistics.median(result.milliseconds for result in own)
        tokens = statistics.median(result.tokens for result in own)
        print(f"| {name} | {losses} | {difference:+.4f} | {milliseconds:.0f} | {tokens:,.0f} |")


if __name__ == "__main__":
    main()
