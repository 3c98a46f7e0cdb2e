"""What saving costs a run: the same steps without saving, with it, and with it in the background, interleaved.

python benchmarks/checkpoint_cost.py                     # 3.2 M parameters, a checkpoint every 4 steps
python benchmarks/checkpoint_cost.py --every 10 --rounds 5 model.layers=8
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from daybreak import Recipe, Run, prepare, train
from daybreak.model.gpt import count_parameters

SIZES = ("model.layers=4", "model.heads=4", "model.dim=256", "model.vocab_size=320", "model.context=128")
STEPS = 24


def lasted(recipe: Recipe, corpus: Path, out: Path) -> tuple[float, Run]:
    """Seconds from the first step to the end of the run, its last save included."""
    began = time.perf_counter()
    run = train(recipe, data=corpus, out=out)
    whole = time.perf_counter() - began
    first = run.metrics()[0]
    return whole - first["elapsed_seconds"], run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=4, help="steps between checkpoints")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    common = [
        *SIZES,
        "data.window=128",
        "data.tokenizer=bytes",
        "batch.tokens=2048",
        f"budget={STEPS}steps",
        "evaluation.every=never",
        "evaluation.tokens=128",
        "samples.every=never",
        *arguments.overrides,
    ]
    ways = {
        "no saving but the last": ["checkpoint.every=never"],
        "saving": [f"checkpoint.every={arguments.every}steps"],
        "saving in the background": [f"checkpoint.every={arguments.every}steps", "checkpoint.background=true"],
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text("The day breaks over the window, and the light comes in. " * 20_000)
        corpus = prepare([str(text)], Path(folder) / "corpus", tokenizer="bytes").path
        for round_ in range(arguments.rounds):
            for way, settings in ways.items():
                recipe = Recipe.load("gpt2-tiny", *common, *settings)
                took, run = lasted(recipe, corpus, Path(folder) / f"{way}-{round_}")
                seconds[way].append(took)
        size = sum(file.stat().st_size for file in run.checkpoint.path.iterdir())
    saves = STEPS // arguments.every - 1
    base = statistics.median(seconds["no saving but the last"])
    print(
        f"\n{count_parameters(recipe.model) / 1e6:.1f} M parameters, {size / 1e6:.0f} MB a checkpoint, "
        f"one every {arguments.every} of {STEPS} steps; medians of {arguments.rounds} interleaved rounds"
    )
    print("| way | seconds, median | all | seconds a save | of the time |\n| --- | ---: | --- | ---: | ---: |")
    for way, took in seconds.items():
        median = statistics.median(took)
        shown = ", ".join(f"{each:.2f}" for each in took)
        each = (median - base) / saves if way != "no saving but the last" else 0.0
        print(f"| {way} | {median:.2f} | {shown} | {each:.3f} | {(median - base) / base:+.1%} |")


if __name__ == "__main__":
    main()
