"""Row b: bits per byte of Wikipedia text after a budget of wall-clock, start-up counted.

All read the same token ids. A peer's schedule is sized by its measured pace and runs to its end: one that is late is
let finish, which is to its advantage, and the seconds that it took are in its record.
"""

from collections.abc import Iterator
from dataclasses import asdict

from contestants import train_ours
from daybreak.progress import say
from processes import FailedError
from protocol import Compression, Setting
from race import steps_of
from texts import Text
from tuning import Peers, tuned

ROW = "compression"


def compress(config: Compression, seeds: int, text: Text, peers: Peers) -> None:
    """Measure what is missing: for each seed and budget every contestant, one after the other."""
    failed: set[str] = set()
    for budget, seed, contestant in _plan(config, seeds, peers):
        if contestant in failed or peers.journal.records(ROW, contestant=contestant, budget=budget, seed=seed):
            continue
        say(f"compression: {contestant}, {budget}, seed {seed}")
        try:
            _attempt(config, contestant, budget, seed, text, peers)
        except FailedError as error:
            say(f"compression: {contestant} is out: {error}")
            failed.add(contestant)


def _plan(config: Compression, seeds: int, peers: Peers) -> Iterator[tuple[str, int, str]]:
    peers_and_tuned = [name for who in peers.names for name in (who, f"{who} tuned")]
    for seed in range(1, seeds + 1):
        for budget in config.budgets:
            for contestant in (*config.ours, *peers_and_tuned):
                yield budget, seed, contestant


def _attempt(config: Compression, contestant: str, budget: str, seed: int, text: Text, peers: Peers) -> None:
    if contestant in config.ours:
        result = train_ours(contestant, config.overrides, budget, seed, text.corpus, None)
        peers.journal.add(ROW, contestant=contestant, budget=budget, seed=seed, **asdict(result))
        return
    who = contestant.removesuffix(" tuned")
    setting = config.stock if contestant == who else _tuned(config, who, budget, text, peers)
    steps = steps_of(peers, who, setting, budget, text)
    peers.train(who, setting, steps, seed, text.scored, row=ROW, contestant=contestant, budget=budget)


def _tuned(config: Compression, who: str, budget: str, text: Text, peers: Peers) -> Setting:
    setting = config.first_guess
    for each, search in config.budgets.items():
        setting = tuned(peers, who, setting, search, text.tuning, purpose=f"{ROW} {each}")
        if each == budget:
            return setting
    raise AssertionError(f"{budget} is not in the protocol")
