"""Does it matter that GPT* had end-of-text at both ends of every document?

python studies/both_ends.py make data/wikinews data/wikinews-both     # the same documents, with a second end-of-text
daybreak study studies/both-ends.toml --data data/wikinews --out runs/both-ends
python studies/both_ends.py measure runs/both-ends                     # the text alone, each in its own format

A study measures all variants on one text, which has one of the two formats, and the other variant never saw it. So
`measure` reads each run's own validation text, and counts the tokens that stand for text, not end-of-text.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch

import daybreak
from daybreak.data.importing import import_files
from daybreak.data.shards import Corpus
from daybreak.run import Run
from daybreak.study.results import compare_all, read_study, trial_folder

_ROWS = 64
_TOKENS = 200_000


def make(source: Path, out: Path) -> None:
    """A corpus with another end-of-text behind each document of `source`."""
    corpus = Corpus.open(source)
    end = corpus.tokenizer.end_of_text
    files = {}
    for split in ("train", "validation"):
        stream = corpus.stream(split)
        tokens = stream.read(0, len(stream))
        starts = np.flatnonzero(tokens == end)
        files[split] = out.with_name(f"{out.name}-{split}.bin")
        np.append(np.insert(tokens, starts[1:], end), end).astype("<u2").tofile(files[split])
    import_files([files["train"]], out, tokenizer=str(source), validation=[files["validation"]], kind="nanogpt")


@torch.no_grad()
def bits_per_byte(run: Run) -> float:
    """Of the text tokens of a run's validation split."""
    corpus = Corpus.open(Path(str(run.recipe.data.corpus)))
    stream, length = corpus.stream("validation"), run.recipe.row_length
    nll, size = 0.0, 0
    for start in range(0, min(_TOKENS, len(stream) - 1 - _ROWS * length), _ROWS * length):
        tokens = torch.from_numpy(stream.read(start, start + _ROWS * length + 1).astype(np.int64))
        inputs_BT, targets_BT = (part.view(_ROWS, length) for part in (tokens[:-1], tokens[1:]))
        logits_BTV = run.model.logits(inputs_BT)
        losses = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="none")
        is_text = targets_BT.flatten() != corpus.tokenizer.end_of_text
        nll += float(losses[is_text].double().sum())
        size += int(corpus.tokenizer.token_bytes[targets_BT.numpy()].sum())
    return nll / math.log(2) / size


def measure(path: Path) -> None:
    study = read_study(path)
    bits = {
        variant.name: {seed: bits_per_byte(daybreak.load(trial_folder(path, variant.name, seed))) for seed in trials}
        for variant, trials in ((variant, study.trials[variant.name]) for variant in study.variants)
    }
    print("| format | bits a byte of text, by seed | difference, 95 % interval | verdict |\n| --- | --- | --- | --- |")
    (comparison,) = compare_all({"both-ends": "base"}, bits)
    found = comparison.difference
    for name, by_seed in bits.items():
        shown = ", ".join(f"{each:.4f}" for each in by_seed.values())
        told = f"{found.mean:+.4f} ({found.low:+.4f} … {found.high:+.4f}) | {comparison.verdict}"
        print(f"| {name} | {shown} | {told if name == comparison.variant else '|'} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("source", type=Path)
    making.add_argument("out", type=Path)
    commands.add_parser("measure").add_argument("study", type=Path)
    asked = parser.parse_args()
    if asked.command == "make":
        make(asked.source, asked.out)
    else:
        measure(asked.study)


if __name__ == "__main__":
    main()
