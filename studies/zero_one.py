"""zero-one at small size: steps to the floor of its entropy, and micro-batch x context at a constant product.

daybreak prepare zero-one --tokenizer bpe:259 --out data/zero-one
python studies/zero_one.py data/zero-one --out runs/zero-one
daybreak profile zero-one-tiny --data data/zero-one           # what takes the time

The floor is the entropy of 0, 1 and end-of-text by their frequencies in the split: a model that knows the frequencies
and nothing else reaches it, since there is nothing else to know but where a document of 1000 words ends.
"""

import argparse
from pathlib import Path
from statistics import fmean, median

import numpy as np

import daybreak
from daybreak.data.shards import Corpus
from daybreak.evaluate.loss import row_starts
from daybreak.study.results import compare_all

_SHAPES = {64: 128, 128: 64, 256: 32}  # context: rows at once; the step is their product
_TOLERANCE = 0.005  # nats above the floor that count as reached
_STEPS = 300
_SAME = (
    f"budget={_STEPS} steps",
    "evaluation.every=10 steps",
    "evaluation.tokens=65536",
    "checkpoint.every=never",
    "execution.threads=1",
)


def floor(corpus: Corpus, length: int, tokens: int) -> float:
    """Nats a token that frequencies alone allow on the rows that a run measures."""
    stream = corpus.stream("validation")
    rows = [
        stream.read(start + 1, min(start + length + 1, len(stream)))
        for start in row_starts(len(stream), length, tokens)
    ]
    text = np.array([corpus.tokenizer.decode([token]).strip() for token in range(corpus.tokenizer.vocab_size)])
    shares = np.unique(text[np.concatenate(rows)], return_counts=True)[1] / sum(map(len, rows))
    return float(-(shares * np.log(shares)).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    corpus = Corpus.open(asked.corpus)
    losses: dict[str, dict[int, float]] = {}
    print("| context x rows | floor | loss at the end, by seed | steps to the floor, by seed | tokens/s |")
    print("| --- | ---: | --- | --- | ---: |")
    for context, rows in _SHAPES.items():
        settings = [f"model.context={context}", f"data.window={max(_SHAPES)}", f"execution.micro_batch={rows}"]
        steps: list[str] = []
        rates: list[float] = []
        name = f"{context} x {rows}"
        losses[name] = {}
        for seed in range(1, asked.seeds + 1):
            recipe = daybreak.Recipe.load("zero-one-tiny", *_SAME, *settings, f"seed={seed}")
            run = daybreak.train(recipe, data=asked.corpus, out=asked.out / f"{context}-{seed}")
            least = floor(corpus, context, 65_536)
            measured = run.metrics("validation")
            reached = [each["step"] for each in measured if each["loss"] < least + _TOLERANCE]
            steps.append(str(reached[0]) if reached else f"over {_STEPS}")
            rates.append(median(each["tokens_per_second"] for each in run.metrics()))
            losses[name][seed] = measured[-1]["loss"]
        ends = ", ".join(f"{loss:.4f}" for loss in losses[name].values())
        print(f"| {name} | {least:.4f} | {ends} | {', '.join(steps)} | {fmean(rates):,.0f} |", flush=True)
    names = list(losses)
    for each in compare_all(dict.fromkeys((names[0], names[2]), names[1]), losses):
        found = each.difference
        interval = f"{found.mean:+.4f} ({found.low:+.4f} … {found.high:+.4f})"
        print(f"{each.variant} to {each.reference}: {interval}, {each.verdict}")


if __name__ == "__main__":
    main()
