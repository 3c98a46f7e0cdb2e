"""The speed and the memory of every variant, each measured by turns with the base, since a machine's speed drifts."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import final

from daybreak.bench.subject import Subject, make_subject, some_tokens
from daybreak.compose import choose_execution
from daybreak.data.shards import Corpus
from daybreak.duration import Unit
from daybreak.errors import UserError
from daybreak.hardware import is_out_of_memory
from daybreak.recipe import Recipe
from daybreak.training.execution import Execution
from daybreak.training.flops import flops_per_token

_SECONDS_A_PAIR = 6.0
_MOST_ROUNDS = 40
_FEWEST_ROUNDS = 3
_WARM_UP_ROUNDS = 2


@final
@dataclass(frozen=True)
class Pace:
    """How a variant runs on this machine, alone on it.

    Attributes:
        step_seconds: of a full step, without evaluation and saving: the base's median, times the median over rounds of
            the variant's time over the base's.
        error: half the range of the middle half of those ratios, over the root of their number: about how far off the
            ratio is, as a share of it.
        peak_bytes: the most that the tensors of a step take, weights and optimizer included.
        micro_batch: rows at once; every trial of the variant has it.
    """

    step_seconds: float
    tokens_per_second: float
    error: float
    peak_bytes: int
    micro_batch: int

    def seconds_of(self, recipe: Recipe) -> float:
        """What the steps of a whole run take at this pace."""
        budget = recipe.budget
        match budget.unit:
            case Unit.SECONDS:
                return budget.amount
            case Unit.STEPS:
                return budget.amount * self.step_seconds
            case Unit.TOKENS:
                return budget.amount / self.tokens_per_second
        return budget.amount / flops_per_token(recipe.model, recipe.row_length) / self.tokens_per_second


def measure_paces(recipes: dict[str, Recipe], note: Callable[[str], None]) -> dict[str, Pace]:
    """The pace of each recipe, by name; the first is the one that the others are timed by turns with.

    Args:
        note: told the name of each as its turn comes.

    Raises:
        UserError: one does not fit this machine or its corpus.
    """
    names = list(recipes)
    with _named(names[0]):
        base = _subject(recipes[names[0]])
        peaks = {names[0]: _peak(base)}
    paces: dict[str, Pace] = {}
    base_seconds: list[float] = []
    ratios: dict[str, list[float]] = {}
    for name in names[1:] or names:
        note(name)
        with _named(name):
            other = _subject(recipes[name])
            peaks[name] = _peak(other)
            of_base, of_other = _by_turns(base, other)
        base_seconds += of_base
        ratios[name] = [theirs / ours for ours, theirs in zip(of_base, of_other, strict=True)]
    seconds = median(base_seconds)
    ratios[names[0]] = [1.0]
    for name, recipe in recipes.items():
        step_seconds = seconds * median(ratios[name])
        paces[name] = Pace(
            step_seconds,
            recipe.batch.tokens / step_seconds,
            _error(ratios[name]),
            peaks[name],
            choose_execution(recipe).micro_batch,
        )
    return paces


@contextmanager
def _named(variant: str) -> Iterator[None]:
    """Say of which variant it is that something does not work."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{variant}: {error}") from None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"{variant}: out of memory: {error}; make it smaller, or leave it out") from None


def _subject(recipe: Recipe) -> Subject:
    """A recipe ready to be timed, on its own text."""
    execution, corpus = choose_execution(recipe), Corpus.open_unverified(Path(recipe.data.places[0]))
    subject = make_subject(recipe, execution, some_tokens(recipe, corpus, execution.micro_batch, vocab_size=0))
    if execution.compile:
        subject.compile()
    return subject


def _by_turns(base: Subject, other: Subject) -> tuple[list[float], list[float]]:
    """Seconds of a step of each, round by round."""
    ours: list[float] = []
    theirs: list[float] = []
    end = time.monotonic() + _SECONDS_A_PAIR
    for round_ in range(_WARM_UP_ROUNDS + _MOST_ROUNDS):
        # Who begins changes with the round: what one leaves in the caches falls on both alike.
        pair = [(base, ours), (other, theirs)]
        for subject, seconds in pair if round_ % 2 else reversed(pair):
            step = _step_seconds(subject)
            if round_ >= _WARM_UP_ROUNDS:
                seconds.append(step)
        if len(ours) >= _FEWEST_ROUNDS and time.monotonic() > end:
            break
    return ours, theirs


def _step_seconds(subject: Subject) -> float:
    """Of a whole step, by a pass of each micro-batch up to some, and one update."""
    rows = subject.rows(subject.execution.micro_batch)
    passes = _passes(subject.recipe, subject.execution)
    timed = [subject.time(rows) for _ in range(min(passes, 2))]
    return passes * median(each.gradient for each in timed) + median(each.update for each in timed)


def _passes(recipe: Recipe, execution: Execution) -> int:
    return recipe.batch.tokens // recipe.row_length // execution.micro_batch


def _peak(subject: Subject) -> int:
    return subject.peak_bytes(subject.rows(subject.execution.micro_batch))


def _error(ratios: list[float]) -> float:
    """A robust standard error of their median, as a share of it."""
    ordered = sorted(ratios)
    quarter = len(ordered) // 4
    spread = ordered[-1 - quarter] - ordered[quarter]
    return float(spread / 2 / len(ordered) ** 0.5 / median(ordered))


def require_steady(name: str, recipe: Recipe) -> None:
    """Raises UserError for a recipe whose steps do not all take the same time."""
    growing = [key for key, value in (("curriculum", recipe.curriculum), ("batch.ramp", recipe.batch.ramp)) if value]
    if growing:
        raise UserError(
            f'{name}: with {growing[0]} steps grow, so a time is no number of steps; give the study clock = "wall"'
        )
