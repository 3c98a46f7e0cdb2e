"""nanoGPT's own code from a checkout, as it is: its train.py with another seed, and the loss of what it saved.

python benchmarks/peers/nanogpt.py train --checkout DIR --seed 1 config/train_shakespeare_char.py --device=cpu ...
python benchmarks/peers/nanogpt.py score --checkout DIR --saved OUT/ckpt.pt --data DATA
"""

import argparse
import json
import os
import pickle
import runpy
import sys
from pathlib import Path

import torch
from scoring import score

_ITS_SEED = 1337


def train(checkout: Path, seed: int, words: list[str]) -> None:
    """Run train.py. It seeds torch with 1337 and has no option for that, so the seed is put in its place."""
    seed_torch = torch.manual_seed
    torch.manual_seed = lambda its: seed_torch(its - _ITS_SEED + seed)  # type: ignore[assignment]
    os.chdir(checkout)
    sys.path.insert(0, str(checkout))
    sys.argv = ["train.py", *words]
    runpy.run_path("train.py", run_name="__main__")


def write_vocabulary(data: Path) -> None:
    """train.py learns the size of the vocabulary from a pickle beside the tokens; none is read here."""
    size = json.loads((data / "facts.json").read_text())["vocab_size"]
    (data / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": size}))


def score_saved(checkout: Path, saved: Path, data: Path) -> dict[str, float]:
    """The loss of a checkpoint, on rows of its own context."""
    sys.path.insert(0, str(checkout))
    from model import GPT, GPTConfig

    checkpoint = torch.load(saved, map_location="cpu", weights_only=True)
    model = GPT(GPTConfig(**checkpoint["model_args"]))
    model.load_state_dict(checkpoint["model"])
    model.eval()
    # Without targets it gives the last position's logits alone.
    found = score(lambda tokens: model(tokens, tokens)[0], data, checkpoint["model_args"]["block_size"])
    return {**found, "steps": checkpoint["iter_num"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("what", choices=("train", "vocabulary", "score"))
    parser.add_argument("--checkout", type=Path)
    parser.add_argument("--seed", type=int, default=_ITS_SEED)
    parser.add_argument("--saved", type=Path)
    parser.add_argument("--data", type=Path)
    asked, words_for_it = parser.parse_known_args()
    if asked.what == "train":
        train(asked.checkout, asked.seed, words_for_it)
    elif asked.what == "vocabulary":
        write_vocabulary(asked.data)
    else:
        print(json.dumps(score_saved(asked.checkout, asked.saved, asked.data)))


if __name__ == "__main__":
    main()
