"""Row d: what lies around the steps: start-up, waiting for data, sampling."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from contestants import peer_command
from daybreak.progress import say
from journal import Journal
from processes import our_command, run, seconds_until
from protocol import Setting
from texts import Text
from tuning import Peers

_OUR_SHAPE = "shakespeare-char-cpu"
_STEPS_OF_A_SCHEDULE = 900  # of which the first is waited for; with more, ours would try micro-batches first


def start_up(rounds: int, setting: Setting, text: Text, peers: Peers) -> None:
    """Seconds from process start until the first step is done, of the same shape, by turns."""
    setting = replace(setting, evaluations=1)  # none before the first step
    for round_ in range(1, rounds + 1):
        for name in ("daybreak", *peers.names):
            if peers.journal.records("start-up", contestant=name, round=round_):
                continue
            say(f"start-up: {name}, round {round_}")
            with tempfile.TemporaryDirectory(prefix="daybreak-bench-") as folder:
                out, log = Path(folder) / "out", Path(folder) / "log.txt"
                if name == "daybreak":
                    where = ["--data", str(text.corpus.path), "--out", str(out)]
                    words = our_command("train", _OUR_SHAPE, f"budget={_STEPS_OF_A_SCHEDULE}steps", *where)
                    file, sign = out / "metrics.jsonl", '"kind": "train"'
                else:
                    words = peer_command(name, setting, _STEPS_OF_A_SCHEDULE, round_, text.scored, out, peers.checkout)
                    file, sign = log, "iter 0:" if name == "nanoGPT" else "first step done"
                seconds = seconds_until(words, log, file, sign)
            peers.journal.add("start-up", contestant=name, round=round_, seconds=seconds)


def waiting(recipes: Mapping[str, tuple[str, ...]], texts: Mapping[str, Text], journal: Journal) -> None:
    """The share of a step that the loop waits for its tensors.

    Args:
        texts: by recipe.
    """
    for name, overrides in recipes.items():
        if journal.records("waiting", contestant=name):
            continue
        say(f"waiting for data: {name}")
        script = str(Path(__file__).with_name("waiting.py"))
        words = [sys.executable, script, name, str(texts[name].corpus.path), *overrides]
        with tempfile.TemporaryDirectory(prefix="daybreak-bench-") as folder:
            output = run(words, Path(folder) / "log.txt").output
        waited, trained, steps = (float(word) for word in output.splitlines()[-1].split())
        figures = {"waited_seconds": waited, "train_seconds": trained, "steps": int(steps)}
        journal.add("waiting", contestant=name, overrides=overrides, share=waited / trained, **figures)


def sampling(options: Sequence[str], journal: Journal) -> None:
    """The table that `benchmarks/sampling.py` prints."""
    script = Path(__file__).with_name("sampling.py")
    if journal.records("sampling"):
        return
    say("sampling with the cache")
    with tempfile.TemporaryDirectory(prefix="daybreak-bench-") as folder:
        finished = run([sys.executable, str(script), *options], Path(folder) / "log.txt")
    table = [line for line in finished.output.splitlines() if line.startswith("|")]
    journal.add("sampling", contestant="daybreak", table=table, command=finished.command)
