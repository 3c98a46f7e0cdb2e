"""Who takes part: our recipes, nanoGPT's own code, and transformers' Trainer; each trains in a process of its own.

Clocks: `seconds` from the start of the training process to its end, saving included; `train_seconds` in steps alone.
Scoring the whole validation split comes behind both, outside the clocks, for everybody alike.
"""

import json
import re
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import daybreak.run
from daybreak.data.shards import Corpus
from daybreak.evaluate.loss import Validation, row_starts
from processes import our_command, peer_script, run
from protocol import Setting

PEERS = ("nanoGPT", "transformers")
_NANOGPT_CONFIG = "config/train_shakespeare_char.py"
_SCORED_ROWS_AT_ONCE = 32


@dataclass(frozen=True)
class Result:
    """A whole schedule and the loss behind it, in nats a token and bits a byte of the whole split."""

    seconds: float
    train_seconds: float
    steps: int
    loss: float
    bits_per_byte: float
    command: str


def train_ours(
    recipe: str, overrides: tuple[str, ...], budget: str, seed: int, corpus: Corpus, row: int | None
) -> Result:
    """Train a recipe by the command line.

    Args:
        row: tokens of the scored rows; the recipe's own unless given.
    """
    with tempfile.TemporaryDirectory(prefix="daybreak-bench-") as folder:
        out = Path(folder) / "run"
        settings = [f"budget={budget}", f"seed={seed}", *overrides, "--data", str(corpus.path)]
        finished = run(our_command("train", recipe, *settings, "--out", str(out)), Path(folder) / "log.txt")
        trained = daybreak.run.load(out)
        length = row or trained.recipe.row_length
        stream = corpus.stream("validation")
        validation = Validation(
            every=None,
            stream=stream,
            starts=row_starts(len(stream), length),
            length=length,
            batch=_SCORED_ROWS_AT_ONCE,
            token_bytes=corpus.tokenizer.token_bytes,
            device=torch.device("cpu"),
            precision="fp32",
        )
        found = validation.measure(trained.model)
        assert found is not None
        spent = trained.spent
        figures = (spent.train_seconds, spent.steps, found.loss, found.bits_per_byte)
        return Result(finished.seconds, *figures, finished.command)


def train_peer(who: str, setting: Setting, steps: int, seed: int, data: Path, checkout: Path | None) -> Result:
    """Train a peer for `steps`, and score it on rows of its context.

    Args:
        who: one of PEERS.
        checkout: nanoGPT's.
    """
    with tempfile.TemporaryDirectory(prefix="daybreak-bench-") as folder:
        out, log = Path(folder) / "out", Path(folder) / "log.txt"
        trained = run(peer_command(who, setting, steps, seed, data, out, checkout), log)
        scored = json.loads(run(_score_command(who, data, out, checkout), log).output.splitlines()[-1])
        if who == "nanoGPT":
            train_seconds = nanogpt_train_seconds(trained.output)
            assert scored["steps"] == steps
        else:
            train_seconds = json.loads(trained.output.splitlines()[-1])["train_seconds"]
        return Result(trained.seconds, train_seconds, steps, scored["loss"], scored["bits_per_byte"], trained.command)


def peer_command(
    who: str, setting: Setting, steps: int, seed: int, data: Path, out: Path, checkout: Path | None
) -> list[str]:
    """The command that trains a peer into `out`."""
    if who == "transformers":
        told = json.dumps(asdict(setting))
        words = ["train", "--data", str(data), "--out", str(out), "--steps", str(steps), "--seed", str(seed)]
        return peer_script("transformers_trainer.py", *words, "--setting", told)
    assert checkout is not None
    if not (data / "meta.pkl").exists():
        run(peer_script("nanogpt.py", "vocabulary", "--data", str(data)), data.with_suffix(".log"))
    words = ["train", "--checkout", str(checkout), "--seed", str(seed)]
    return peer_script("nanogpt.py", *words, *_nanogpt_words(setting, steps, data, out))


def _nanogpt_words(setting: Setting, steps: int, data: Path, out: Path) -> list[str]:
    """As its CPU command. It saves behind every evaluation of its own, here at the latest behind the last step."""
    layers, heads, dim = setting.shape
    options: dict[str, Any] = {
        "device": "cpu",
        "compile": False,
        "eval_iters": 20 if setting.evaluations > 1 else 1,
        "eval_interval": max(1, steps // setting.evaluations),
        "always_save_checkpoint": True,
        "log_interval": 1,
        "block_size": setting.context,
        "batch_size": setting.batch,
        "n_layer": layers,
        "n_head": heads,
        "n_embd": dim,
        "dropout": 0.0,
        "max_iters": steps,
        "lr_decay_iters": steps,
        "warmup_iters": round(setting.warmup * steps),
        "learning_rate": float(setting.lr),
        "min_lr": float(setting.lr * setting.final),
        "beta2": setting.beta2,
        "dataset": data.resolve(),
        "out_dir": out.resolve(),
    }
    return [_NANOGPT_CONFIG, *(f"--{key}={value}" for key, value in options.items())]


def _score_command(who: str, data: Path, out: Path, checkout: Path | None) -> list[str]:
    if who == "transformers":
        return peer_script("transformers_trainer.py", "score", "--data", str(data), "--out", str(out))
    words = ["--checkout", str(checkout), "--saved", str(out / "ckpt.pt"), "--data", str(data)]
    return peer_script("nanogpt.py", "score", *words)


def nanogpt_train_seconds(output: str) -> float:
    """Its steps by its own clock; those that hold an evaluation are counted as the median of all."""
    times = [float(found) / 1000 for found in re.findall(r"^iter \d+: loss .*?, time ([\d.]+)ms", output, re.MULTILINE)]
    evaluated = {int(found) for found in re.findall(r"^step (\d+): train loss", output, re.MULTILINE)}
    median = statistics.median(times)
    return sum(median if step in evaluated else seconds for step, seconds in enumerate(times))
