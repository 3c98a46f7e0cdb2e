"""Daybreak against nanoGPT's code and transformers' Trainer, on this machine's CPU; every finished run is kept.

python benchmarks/cpu.py --nanogpt ../nanoGPT          # all rows: hours; stop it at any time, the same command goes on
python benchmarks/cpu.py --only race throughput        # some of: race, compression, throughput, around
python benchmarks/cpu.py --report                      # write the table of what was measured so far
python benchmarks/cpu.py --again race:daybreak-char    # measure a contestant anew, in this row alone
python benchmarks/cpu.py --toy                         # everything within a few minutes, to see that it works

The texts are `tinyshakespeare/input.txt` and `corpus/wikipedia_en.jsonl.xz` in the folder that DAYBREAK_TEST_DATA
names, or what --text and --corpus give. What is compared, and how, is in protocol.py.
"""

import argparse
import os
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import torch

import around
import throughput
from compression import compress
from daybreak.errors import UserError
from daybreak.progress import say
from journal import Journal
from processes import FailedError
from protocol import FULL, TOY, Protocol
from race import race
from report import report
from texts import Text, prepared
from tuning import Peers

HERE = Path(__file__).parent
ROWS = ("throughput", "around", "race", "compression")


def measure(
    protocol: Protocol, rows: list[str], characters: Callable[[], Text], articles: Callable[[], Text], peers: Peers
) -> None:
    """Make what is missing of the rows; one that fails leaves the others.

    Args:
        characters, articles: the texts, prepared when they are asked for.
    """

    def wait() -> None:
        texts = {name: articles if name in protocol.compression.ours else characters for name in protocol.waiting}
        around.waiting(protocol.waiting, {name: text() for name, text in texts.items()}, journal)

    journal, seeds = peers.journal, protocol.seeds
    parts: dict[str, tuple[Callable[[], None], ...]] = {
        "throughput": (lambda: throughput.measure(protocol.throughput, articles(), journal),),
        "around": (
            lambda: around.start_up(protocol.start_up_rounds, protocol.race.stock, characters(), peers),
            wait,
            lambda: around.sampling(protocol.sampling, journal),
        ),
        "race": (lambda: race(protocol.race, seeds, characters(), peers),),
        "compression": (lambda: compress(protocol.compression, seeds, articles(), peers),),
    }
    for part in (part for row in rows for part in parts[row]):
        try:
            part()
        except (FailedError, UserError) as error:
            say(f"not measured: {error}")


def toy_text(folder: Path) -> Path:
    """A file with a little to learn, in several documents."""
    generator = random.Random(0)
    words = ["day", "break", "light", "window", "token", "order", "the", "a", "of", "and", "is", "not"]
    path = folder / "toy.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = (" ".join(generator.choice(words) for _ in range(100)) for _ in range(60))
    path.write_text("".join('{"text": "' + each + '."}\n' for each in text))
    return path


def sources(asked: argparse.Namespace) -> tuple[Path, Path]:
    """Where the texts of characters and of articles lie."""
    if asked.toy and not (asked.text and asked.corpus):
        return (toy_text(asked.work),) * 2
    data = Path(os.environ.get("DAYBREAK_TEST_DATA", "."))
    text = asked.text or data / "tinyshakespeare" / "input.txt"
    corpus = asked.corpus or data / "corpus" / "wikipedia_en.jsonl.xz"
    return text, corpus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), help="rows")
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT; without it, its code does not take part")
    parser.add_argument("--text", type=Path, help="tiny Shakespeare")
    parser.add_argument("--corpus", type=Path, help="documents for bits per byte")
    parser.add_argument("--work", type=Path, default=Path("runs/bench-cpu"), help="folder for prepared texts")
    parser.add_argument("--results", type=Path, help="measurements; benchmarks/results/cpu.jsonl unless given")
    parser.add_argument("--seeds", type=int, help="fewer than the protocol's, for a first look")
    parser.add_argument("--again", nargs="+", default=[], metavar="[ROW:]CONTESTANT", help="measure these anew")
    parser.add_argument("--report", action="store_true", help="measure nothing, write the tables")
    parser.add_argument("--toy", action="store_true", help="everything in sizes of seconds, to see that it works")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what it started ends too
    asked.work = asked.work / "toy" if asked.toy else asked.work
    kept = asked.work if asked.toy else HERE / "results"
    protocol = TOY if asked.toy else FULL
    protocol = replace(protocol, seeds=asked.seeds or protocol.seeds)
    journal = Journal(asked.results or kept / "cpu.jsonl")
    for words in asked.again:
        row, _, contestant = words.rpartition(":")
        journal.forget(contestant, row or None)
    if torch.get_num_threads() < (os.cpu_count() or 1):
        say(f"warning: torch uses {torch.get_num_threads()} of {os.cpu_count()} cores; is OMP_NUM_THREADS set?")
    if not asked.report:
        text, corpus = sources(asked)
        config = protocol.compression
        characters = cache(lambda: prepared(text, asked.work / "characters", tokenizer="chars", validation=0.1))
        articles = cache(
            lambda: prepared(corpus, asked.work / "articles", tokenizer=config.tokenizer, validation=config.validation)
        )
        checkout = asked.nanogpt.resolve() if asked.nanogpt else None
        if checkout is None:
            say("without --nanogpt CHECKOUT, nanoGPT's own code does not take part")
        peers = Peers(journal, checkout, protocol.calibration_steps)
        measure(protocol, asked.only, characters, articles, peers)
    path = kept / f"{datetime.now(UTC).date().isoformat()}-cpu.md"
    path.write_text(report(protocol, journal), encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
