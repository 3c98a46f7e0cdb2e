"""The runs of a study on longer rows than they were trained with: loss by variant and context, over seeds.

daybreak study studies/positions.toml --data data/wikipedia --out runs/positions
python studies/contexts.py runs/positions held-out.jsonl --contexts 256 512 1024 2048
"""

import argparse
from pathlib import Path
from statistics import fmean, stdev

import daybreak
from daybreak.study.results import read_study, trial_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("text", help="a text that no run has seen")
    parser.add_argument("--contexts", type=int, nargs="+", default=[256, 512, 1024, 2048])
    asked = parser.parse_args()
    study = read_study(asked.study)
    print(f"| trained | {' | '.join(str(context) for context in asked.contexts)} |")
    print(f"| --- |{' ---: |' * len(asked.contexts)}")
    for variant in study.variants:
        runs = [daybreak.load(trial_folder(study.path, variant.name, seed)) for seed in study.trials[variant.name]]
        cells = []
        for context in asked.contexts:
            losses = [run.evaluate_text(asked.text, context=context).loss for run in runs]
            cells.append(f"{fmean(losses):.4f}" + (f" ± {stdev(losses):.4f}" if len(losses) > 1 else ""))
        print(f"| {variant.name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
