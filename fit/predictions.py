"""Ten runs whose losses are written down before they run, at up to twice the largest budget of the fit.

python fit/predictions.py write                                  # fit/results/predictions.json, by the package's law
python fit/predictions.py run --corpus data/wikipedia            # an hour on two cores; stop and go on at will
python fit/predictions.py report

At three budgets in seconds, of which each depth makes FLOPs at its speed, the depth that the law chooses and those
beside it, and one more. The seed is not that of the fit.
"""

import argparse
import itertools
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from grid import RESULTS, chain, perform_all, read_results
from laws import speeds

import daybreak
from daybreak.scaling import LossLaw, n_of

PREDICTIONS = RESULTS.parent / "predictions.json"
SECONDS = (240, 480, 720)  # of one thread, at the speeds that the depths had in the grid
DEPTHS = (1, 2, 3)
MORE = ((4, 720),)
SEED = 2


def expected(depth: int, flops: float) -> float:
    recipe = daybreak.Recipe.load(f"daybreak-d{depth}")
    n = n_of(recipe.model, recipe.row_length)
    return LossLaw.fitted().loss(n, flops / 6 / n)


def write() -> None:
    if PREDICTIONS.exists():
        raise SystemExit(f"{PREDICTIONS} is written; predictions are made once")
    speed = speeds(read_results())
    runs: list[dict[str, Any]] = []
    for depth, seconds in [*itertools.product(DEPTHS, SECONDS), *MORE]:
        flops = float(f"{speed[depth] * seconds:.3g}")
        runs.append({"seconds": seconds, "depth": depth, "flops": flops, "expected": round(expected(depth, flops), 4)})
    document = {"written": datetime.now(UTC).isoformat(timespec="seconds"), "seed": SEED, "runs": runs}
    PREDICTIONS.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(PREDICTIONS.read_text(encoding="utf-8"))


def run(work: Path, corpus: Path) -> None:
    asked = json.loads(PREDICTIONS.read_text(encoding="utf-8"))["runs"]
    depths = sorted({each["depth"] for each in asked}, reverse=True)
    work.mkdir(parents=True, exist_ok=True)
    perform_all(
        [
            chain("prediction", depth, [each["flops"] for each in asked if each["depth"] == depth], work, corpus, SEED)
            for depth in depths
        ]
    )


def report() -> None:
    came = {(each["depth"], each["flops"]): each["loss"] for each in read_results() if each["kind"] == "prediction"}
    document = json.loads(PREDICTIONS.read_text(encoding="utf-8"))
    print(f"Written down {document['written']}, seed {document['seed']}.\n")
    print("| seconds | depth | FLOPs | expected | came to | error |\n| ---: | --- | ---: | ---: | ---: | ---: |")
    runs = [each | {"loss": came.get((each["depth"], each["flops"]))} for each in document["runs"]]
    for each in runs:
        loss = "not run | " if each["loss"] is None else f"{each['loss']:.3f} | {each['expected'] - each['loss']:+.3f}"
        print(f"| {each['seconds']} | {each['depth']} | {each['flops']:.3g} | {each['expected']:.3f} | {loss} |")
    ended = [each for each in runs if each["loss"] is not None]
    if ended:
        mean = sum(abs(each["expected"] - each["loss"]) for each in ended) / len(ended)
        print(f"\nMean size of the error over {len(ended)} runs: {mean:.3f} nats.")
    for seconds in SECONDS:
        level = [each for each in ended if each["seconds"] == seconds]
        if level:
            chosen = min(level, key=lambda each: each["expected"])
            above = chosen["loss"] - min(each["loss"] for each in level)
            print(f"{seconds} s: depth {chosen['depth']} is chosen, {above:.3f} nats above the best of {len(level)}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("write", "run", "report"))
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/predictions"), help="folder for the runs themselves")
    asked = parser.parse_args()
    match asked.what:
        case "write":
            write()
        case "run":
            if asked.corpus is None:
                parser.error("run needs --corpus")
            run(asked.work, asked.corpus)
        case "report":
            report()


if __name__ == "__main__":
    main()
