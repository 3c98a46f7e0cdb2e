"""The runs that the laws are fitted to: depths and FLOPs, learning rates at three widths; every finished one is kept.

python fit/grid.py --corpus data/wikipedia                 # all: an hour or two on two cores; stop and go on at will
python fit/grid.py --corpus data/wikipedia --only sweep

The corpus is prepared by: daybreak prepare wikipedia_en.jsonl.xz --tokenizer bpe:4096 --out data/wikipedia. As many
runs go on at once as there are cores, each on one thread: what is compared is loss at equal FLOPs, not speed. A depth's
runs branch from one trunk: the first is trained, each following one extends the one before.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import daybreak
from daybreak.data.shards import Corpus
from daybreak.progress import say
from daybreak.training.flops import flops_per_token

RESULTS = Path(__file__).parent / "results" / "runs.jsonl"
TEXT = RESULTS.parent / "text.json"
# FLOPs of each depth's branches: at least fifty steps, and the shallow ones far past their best.
GRID = {
    1: (1.25e12, 2.5e12, 5e12, 1e13, 2e13, 4e13),
    2: (2.5e12, 5e12, 1e13, 2e13, 4e13),
    3: (5e12, 1e13, 2e13, 4e13),
    4: (1e13, 2e13, 4e13),
}
SWEEP_WIDTHS = (96, 192, 384)
SWEEP_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of all learning rates together, those of daybreak-small at 192
SWEEP_STEPS = 200
# The batch is what the rule gives up to 8e13 FLOPs, so that depths differ in nothing else.
_SAME = (
    "batch.tokens=4096",
    "checkpoint.keep=1",
    "evaluation.every=never",
    "evaluation.tokens=131072",
    "checkpoint.every=never",
    "execution.threads=1",
)
_CURVE_POINTS = 50


@dataclass(frozen=True)
class Run:
    """One run, by the words of the command line; `key` says which it is."""

    key: dict[str, Any]
    words: tuple[str, ...]
    out: Path


def chain(kind: str, depth: int, budgets: Sequence[float], work: Path, corpus: Path, seed: int) -> list[Run]:
    """A depth's runs, each an extension of the one before."""
    runs: list[Run] = []
    for flops in sorted(budgets):
        key = {"kind": kind, "depth": depth, "flops": flops, "seed": seed}
        out = work / f"d{depth}-{flops:g}-s{seed}"
        budget = f"budget={flops:g} flops"
        if runs:
            words = ("extend", str(runs[-1].out), budget)
        else:
            words = ("train", f"daybreak-d{depth}", budget, f"seed={seed}", "--data", str(corpus), *_SAME)
        runs.append(Run(key, words, out))
    return runs


def sweep_runs(work: Path, corpus: Path, seed: int) -> list[list[Run]]:
    """Two layers of each width, all learning rates times each factor."""
    runs = []
    for width in reversed(SWEEP_WIDTHS):
        small = daybreak.Recipe.load("daybreak-small").optimizer.model_dump()
        rates = {name: small[name] for name in ("lr", "adam_lr", "embedding_lr")}
        rates["adam_lr"] *= (192 / width) ** 0.5
        for factor in SWEEP_FACTORS:
            key = {"kind": "sweep", "width": width, "factor": factor, "seed": seed}
            scaled = [f"optimizer.{name}={rate * factor:g}" for name, rate in rates.items()]
            shape = ["model.layers=2", f"model.dim={width}", f"model.heads={width // 96}"]
            words = ("train", "daybreak-d2", *shape, *scaled, f"budget={SWEEP_STEPS} steps", f"seed={seed}", *_SAME)
            out = work / f"w{width}-x{factor:g}-s{seed}"
            runs.append([Run(key, (*words, "--data", str(corpus)), out)])
    return runs


def perform_all(chains: Sequence[Sequence[Run]]) -> None:
    """As many at once as there are cores."""
    done = read_results()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        if not all(list(pool.map(lambda each: perform(each, done), chains))):
            raise SystemExit("some runs failed; the same command makes what is missing")


def perform(runs: Sequence[Run], done: list[dict[str, Any]]) -> bool:
    """Make what is missing of a chain; whether all went well."""
    for run in runs:
        if any(all(record[key] == value for key, value in run.key.items()) for record in done):
            continue
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        words = [sys.executable, "-m", "daybreak", *run.words, "--out", str(run.out)]
        finished = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        if finished.returncode:
            say(f"{run.key} failed:\n{finished.stderr[-2000:]}")
            return False
        record = {**run.key, **_measured(run.out)}
        say(f"{run.key}: loss {record['loss']:.4f}, {record['tokens']:,} tokens")
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
    return True


def describe(corpus: Path, text: str) -> None:
    """What the runs read, for whom their losses are to be compared with others."""
    found = Corpus.open(corpus)
    about = {
        "text": f"{text}, {found.tokenizer.vocab_size:,} words",
        "tokenizer": found.tokenizer.identity,
        "bytes_per_token": found.train.bytes / found.train.tokens,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    TEXT.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _measured(out: Path) -> dict[str, Any]:
    run = daybreak.load(out)
    losses = [record["loss"] for record in run.metrics()]
    size = max(1, len(losses) // _CURVE_POINTS)
    model = run.recipe.model
    return {
        "steps": run.spent.steps,
        "tokens": run.spent.tokens,
        "flops_per_token": flops_per_token(model, run.recipe.row_length),
        "dim": model.dim,
        "loss": run.final_loss,
        "train_seconds": round(run.spent.train_seconds, 1),
        "torch": run.execution.torch_version,
        "curve": [round(sum(part) / len(part), 4) for part in _parts(losses, size)],
    }


def _parts(values: list[float], size: int) -> list[list[float]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def read_results() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()] if RESULTS.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/fit"), help="folder for the runs themselves")
    parser.add_argument("--text", default="English Wikipedia", help="what the corpus is, in words")
    parser.add_argument("--only", choices=("grid", "sweep"))
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    describe(asked.corpus, asked.text)
    chains: list[list[Run]] = []
    if asked.only != "sweep":
        chains += [chain("grid", depth, GRID[depth], asked.work, asked.corpus, asked.seed) for depth in GRID]
    if asked.only != "grid":
        chains += sweep_runs(asked.work, asked.corpus, asked.seed)
    perform_all(chains)


if __name__ == "__main__":
    main()
