"""A peer's schedule for a budget of seconds, and its tuning: one field after the other, by short runs."""

import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from contestants import Result, train_peer
from journal import Journal
from protocol import Search, Setting

_TUNING_SEED = 100  # none of the seeds that are scored


@dataclass(frozen=True)
class Peers:
    """What is needed to run them.

    Attributes:
        checkout: nanoGPT's; without it nanoGPT's code does not take part.
    """

    journal: Journal
    checkout: Path | None
    calibration_steps: int

    @property
    def names(self) -> tuple[str, ...]:
        return ("nanoGPT", "transformers") if self.checkout else ("transformers",)

    def train(self, who: str, setting: Setting, steps: int, seed: int, data: Path, **key: Any) -> Result:
        """Train and score a peer, and note it; `key` says of which row it is."""
        result = train_peer(who, setting, steps, seed, data, self.checkout)
        told = {"peer": who, "setting": asdict(setting), "seed": seed}
        self.journal.add(**{**told, **key, **asdict(result)})
        return result


def steps_within(peers: Peers, who: str, setting: Setting, seconds: float, data: Path) -> int:
    """Steps that fit between process start and `seconds`, by the median pace of all runs of this size so far."""
    before = _runs_of_this_size(peers.journal, who, setting)
    if not before:
        peers.train(who, setting, peers.calibration_steps, _TUNING_SEED, data, row="calibration", contestant=who)
        before = _runs_of_this_size(peers.journal, who, setting)
    start = statistics.median(run["seconds"] - run["train_seconds"] for run in before)
    step = statistics.median(run["train_seconds"] / run["steps"] for run in before)
    return max(1, int((seconds - start) / step))


def _runs_of_this_size(journal: Journal, who: str, setting: Setting) -> list[dict[str, Any]]:
    size = {key: asdict(setting)[key] for key in ("shape", "context", "batch", "precision", "evaluations")}
    size["shape"] = list(size["shape"])
    runs = [run for row in ("calibration", "tuning", "race", "compression") for run in journal.records(row, peer=who)]
    return [run for run in runs if all(run["setting"][key] == value for key, value in size.items())]


def tuned(
    peers: Peers,
    who: str,
    first_guess: Setting,
    search: Search,
    data: Path,
    *,
    purpose: str,
) -> Setting:
    """The best setting that was tried: along each axis in turn all values, the best so far for the other fields.

    Args:
        data: the folder whose `val.bin` is the end of the training text.
        purpose: which row the trials are for; those that were made before are not made again.
    """
    best, lowest = first_guess, _trial(peers, who, first_guess, search.seconds, data, purpose)
    for field, values in search.axes.items():
        if field == "precision" and who == "nanoGPT":
            continue  # its code trains in fp32 on a CPU
        here = best
        for candidate in (replace(here, **{field: value}) for value in values):
            if candidate == here:
                continue
            loss = _trial(peers, who, candidate, search.seconds, data, purpose)
            if loss < lowest:
                best, lowest = candidate, loss
    return best


def _trial(peers: Peers, who: str, setting: Setting, seconds: float, data: Path, purpose: str) -> float:
    made = peers.journal.records("tuning", peer=who, purpose=purpose, setting=asdict(setting), budget=f"{seconds:g}s")
    if made:
        return float(made[-1]["loss"])
    steps = steps_within(peers, who, setting, seconds, data)
    key = {"row": "tuning", "contestant": f"{who} tuned", "purpose": purpose, "budget": f"{seconds:g}s"}
    return peers.train(who, setting, steps, _TUNING_SEED, data, **key).loss
