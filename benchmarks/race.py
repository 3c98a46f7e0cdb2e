"""Row a: process start to a validation loss on tiny Shakespeare.

A contestant's time is that of the shortest budget of its grid whose median loss over the seeds, at the end of the whole
schedule, is at or below the target. Contestants take turns, a run each, in fresh processes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from contestants import train_ours
from daybreak.duration import Duration, Unit
from daybreak.progress import say
from journal import Journal
from processes import FailedError
from protocol import Race
from texts import Text
from tuning import Peers, steps_within, tuned

ROW = "race"


@dataclass(frozen=True)
class Contestant:
    """One that takes part: `attempt(budget, seed)` measures and notes a run."""

    name: str
    budgets: Sequence[str]
    attempt: Callable[[str, int], object]


def race(config: Race, seeds: int, text: Text, peers: Peers) -> None:
    """Measure until every contestant reached the target or spent its grid."""
    contestants = [_ours(config, name, text, peers.journal) for name in config.ours]
    for who in peers.names:
        contestants += [_stock(config, who, text, peers), _tuned(config, who, text, peers)]
    running = list(contestants)
    while running:
        for contestant in list(running):
            following = next_attempt(contestant, peers.journal, config.target, seeds)
            if following is None:
                running.remove(contestant)
                continue
            say(f"race: {contestant.name}, {following[0]}, seed {following[1]}")
            try:
                contestant.attempt(*following)
            except FailedError as error:
                say(f"race: {contestant.name} is out: {error}")
                running.remove(contestant)


def next_attempt(contestant: Contestant, journal: Journal, target: float, seeds: int) -> tuple[str, int] | None:
    """The budget and seed to run next; None once the target was reached, or the grid is spent."""
    for budget in contestant.budgets:
        losses = losses_by_seed(journal, contestant.name, budget)
        missed = sum(not loss <= target for loss in losses.values())
        if missed > seeds // 2:
            continue  # whatever the other seeds give, the median misses
        wanted = [seed for seed in range(1, seeds + 1) if seed not in losses]
        return (budget, wanted[0]) if wanted else None
    return None


def losses_by_seed(journal: Journal, contestant: str, budget: str) -> Mapping[int, float]:
    return {record["seed"]: record["loss"] for record in journal.records(ROW, contestant=contestant, budget=budget)}


def _ours(config: Race, recipe: str, text: Text, journal: Journal) -> Contestant:
    def attempt(budget: str, seed: int) -> None:
        result = train_ours(recipe, config.overrides, budget, seed, text.corpus, config.row)
        journal.add(ROW, contestant=recipe, budget=budget, seed=seed, **asdict(result))

    return Contestant(recipe, config.ours[recipe], attempt)


def _stock(config: Race, who: str, text: Text, peers: Peers) -> Contestant:
    def attempt(budget: str, seed: int) -> None:
        steps = steps_of(peers, who, config.stock, budget, text)
        peers.train(who, config.stock, steps, seed, text.scored, row=ROW, contestant=who, budget=budget)

    return Contestant(who, config.stock_budgets, attempt)


def _tuned(config: Race, who: str, text: Text, peers: Peers) -> Contestant:
    name = f"{who} tuned"

    def attempt(budget: str, seed: int) -> None:
        setting = tuned(peers, who, config.first_guess, config.search, text.tuning, purpose=ROW)
        steps = steps_of(peers, who, setting, budget, text)
        peers.train(who, setting, steps, seed, text.scored, row=ROW, contestant=name, budget=budget)

    return Contestant(name, config.tuned_budgets, attempt)


def steps_of(peers: Peers, who: str, setting: Any, budget: str, text: Text) -> int:
    """A peer's steps for a budget in steps or seconds."""
    duration = Duration.parse(budget)
    if duration.unit is Unit.SECONDS:
        return steps_within(peers, who, setting, duration.amount, text.scored)
    return int(duration.amount)
