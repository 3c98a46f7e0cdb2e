"""What a run may spend, and how much of it is spent.

`progress` is the share of the budget that is spent, from 0 to 1. Schedules see only progress, so
that a run in hours and a run in steps decay alike.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, final

from daybreak.duration import Duration, Unit, require_positive
from daybreak.errors import UserError
from daybreak.training.growth import Growth, StepSize
from daybreak.training.spent import Spent

FEW_STEPS = 50  # a run of fewer learns next to nothing
Counts = Literal["process", "train"]
Ending = Literal["evaluation", "sample", "tasks", "save"]  # what comes behind the last step
_MOST_FOR_AN_EVALUATION = 0.5  # of the time that is left to train, in the middle of a run
_LARGEST_GUESS = 0.4  # of a time budget, kept for an evaluation before one was timed
_UNKNOWN_SHARE = 1e-9  # of a step before any was measured: warm-ups in percent begin near zero
_ROUNDING = 1e-6  # of a step, in sums of FLOPs


@final
@dataclass(frozen=True)
class Rates:
    """What turns one unit into another: all known before a run begins.

    Attributes:
        full: a step at its largest; every one, unless steps grow.
    """

    full: StepSize
    windows_per_epoch: int
    parameters: int


@final
@dataclass(frozen=True)
class Moment:
    """Where a step stands in its budget.

    Attributes:
        progress: share spent before the step.
        share: share that the step itself takes.
        size: how large the step is.
        whole: the budget, in the unit that is counted.
        steps_total: steps in the whole budget; at the pace so far where it is a time, or FLOPs that grow.
        alike: every step has as many tokens, so that steps and tokens stand for each other.
    """

    progress: float
    share: float
    size: StepSize
    whole: Duration
    steps_total: float
    alike: bool
    rates: Rates

    def foreseen(self, spent: Spent) -> Spent:
        """What will be spent once the step is done; in time as far as is known."""
        return replace(
            spent,
            steps=spent.steps + 1,
            tokens=spent.tokens + self.size.tokens,
            elapsed_seconds=spent.elapsed_seconds + spent.train_seconds / max(1, spent.steps),
            progress=min(1.0, self.progress + self.share),
        )

    def share_of(self, duration: Duration, setting: str) -> float:
        """The share of the budget that `duration` stands for.

        Args:
            setting: where the duration stands in a recipe.

        Raises:
            UserError: it cannot be turned into what the budget counts.
        """
        asked = f"{setting} = {duration}"
        match duration.unit:
            case Unit.PERCENT:
                return duration.amount / 100
            case self.whole.unit:
                return duration.amount / self.whole.amount
            case Unit.STEPS | Unit.TOKENS | Unit.EPOCHS if self.alike:
                return steps_of(duration, self.rates) / self.steps_total
            case Unit.STEPS | Unit.TOKENS | Unit.EPOCHS:
                fitting = "a time" if self.whole.unit is Unit.SECONDS else self.whole.unit.value
                raise UserError(
                    f"{asked} cannot be counted against a budget of {self.whole} where batch.ramp makes steps grow; "
                    f"use {fitting} or a percentage"
                )
        raise UserError(f"{asked} cannot be counted against this run's budget; use a percentage")


class Budget(ABC):
    """A budget in one of its two kinds, counted or timed.

    Attributes:
        growth: how steps grow; None where all are the same.
    """

    rates: Rates
    growth: Growth | None

    @abstractmethod
    def allows_another_step(self, spent: Spent) -> bool:
        """Whether one more step fits."""

    @abstractmethod
    def progress(self, spent: Spent) -> float:
        """The share of the budget that is spent; never less than before."""

    @abstractmethod
    def moment(self, spent: Spent) -> Moment:
        """Where the next step stands."""

    @abstractmethod
    def affords_evaluation(self, spent: Spent) -> bool:
        """Whether an evaluation now, beside the last one, leaves time to go on and to end with a decayed rate."""

    @abstractmethod
    def note_ending(self, what: Ending, seconds: float) -> None:
        """Hear how long one of these took: the last of each must fit behind the last step."""

    @abstractmethod
    def _note_step(self, size: StepSize, seconds: float) -> None:
        """Hear how long a step took: the next must fit."""

    @abstractmethod
    def seconds_left(self, spent: Spent) -> float | None:
        """Until the end at the pace so far; None before any step."""

    @abstractmethod
    def __str__(self) -> str: ...

    @final
    def after_step(self, spent: Spent, size: StepSize, *, seconds: float, elapsed: float) -> Spent:
        """What is spent once a step of `size` is done that took `seconds`, at `elapsed` seconds of the run."""
        after = replace(
            spent,
            steps=spent.steps + 1,
            windows=spent.windows + size.windows,
            tokens=spent.tokens + size.tokens,
            flops=spent.flops + size.flops,
            train_seconds=spent.train_seconds + seconds,
            elapsed_seconds=elapsed,
        )
        self._note_step(size, seconds)
        return replace(after, progress=self.progress(after))

    @final
    def _next_size(self, spent: Spent) -> StepSize:
        if self.growth is None:
            return self.rates.full
        return self.growth.next(replace(spent, progress=self.progress(spent)))

    @property
    def _alike(self) -> bool:
        return self.growth is None or self.growth.batch.ramp is None


@final
@dataclass(frozen=True)
class CountBudget(Budget):
    """A number of steps, tokens or FLOPs.

    What is in proportion to steps is counted in whole ones, so that the last ends at a progress of 1; tokens and FLOPs
    are counted themselves only where steps grow, and the last step then ends less than one step before it.
    """

    whole: Duration
    rates: Rates
    growth: Growth | None = None

    def allows_another_step(self, spent: Spent) -> bool:
        following = self.step_amount(self._next_size(spent))
        return spent.amount(self.whole.unit) + following * (1 - _ROUNDING) <= self.whole.amount

    def progress(self, spent: Spent) -> float:
        return min(1.0, spent.amount(self.whole.unit) / self.whole.amount)

    def moment(self, spent: Spent) -> Moment:
        progress, size = self.progress(spent), self._next_size(spent)
        share = self.step_amount(size) / self.whole.amount
        steps = self.whole.amount if self.whole.unit is Unit.STEPS else (spent.steps + 1) / (progress + share)
        return Moment(progress, share, size, self.whole, steps, self._alike, self.rates)

    def affords_evaluation(self, spent: Spent) -> bool:
        return True

    def note_ending(self, what: Ending, seconds: float) -> None:
        """Steps are counted, not timed."""

    def _note_step(self, size: StepSize, seconds: float) -> None:
        """Steps are counted, not timed."""

    def seconds_left(self, spent: Spent) -> float | None:
        counted = spent.amount(self.whole.unit)
        return spent.train_seconds / counted * (self.whole.amount - counted) if counted else None

    def step_amount(self, size: StepSize) -> float:
        """What a step takes of the budget."""
        return {Unit.STEPS: 1, Unit.TOKENS: size.tokens, Unit.FLOPS: size.flops}[self.whole.unit]

    def __str__(self) -> str:
        smallest = "" if self.growth is None or self._alike else f"{self.growth.batch.smallest:,} to "
        tokens = f"{smallest}{self.rates.full.tokens:,} tokens"
        if self.whole.unit is Unit.STEPS:
            return f"{self.whole.amount:,.0f} steps of {tokens}"
        return f"{self.whole} in steps of {tokens}"


@final
@dataclass
class Clock:
    """Seconds of a run, over all its sittings, by the monotonic clock.

    Attributes:
        started: reading of the monotonic clock at which this sitting began.
        before: seconds that earlier sittings took.
    """

    started: float
    before: float = 0.0

    def elapsed(self) -> float:
        return self.before + time.monotonic() - self.started


@final
@dataclass
class TimeBudget(Budget):
    """Wall-clock seconds, the last evaluation and save included.

    Progress is trained / (trained + left), where `left` is what remains behind the reserve. So
    start-up, compilation and evaluations shorten the run but do not eat the warm-up.

    Attributes:
        counts: `process` counts from process start; `train` counts steps alone.
        evaluation_steps: tokens of an evaluation, counted in full steps; sizes the reserve until one was timed.
        step_seconds: what a full step may take, until one was done.
        save_seconds: what a save may take, until one was timed.
        recorded: progress and share of steps that an earlier sitting did but did not save; followed
            when they are done again, so that they come out the same.
    """

    seconds: float
    counts: Counts
    clock: Clock
    rates: Rates
    growth: Growth | None = None
    evaluation_steps: float = 0.0
    step_seconds: float = 0.0
    save_seconds: float = 0.0
    recorded: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    _ending_seconds: dict[Ending, list[float]] = field(default_factory=dict)
    _steps_timed: list[tuple[StepSize, float]] = field(default_factory=list)

    def allows_another_step(self, spent: Spent) -> bool:
        return self._left(spent) > max(self._seconds_of(self._next_size(spent)))

    def progress(self, spent: Spent) -> float:
        whole = self._whole(spent)
        done_before, _ = self.recorded.get(spent.steps - 1, (0.0, 0.0))  # what follows a replay falls not behind it
        return max(spent.progress, done_before, spent.train_seconds / whole if whole else 1.0)

    def moment(self, spent: Spent) -> Moment:
        whole, size = self._whole(spent), self._next_size(spent)
        pace = spent.train_seconds / spent.flops if spent.flops else self.step_seconds / self.rates.full.flops
        share = min(1.0, pace * size.flops / whole) if pace and whole else _UNKNOWN_SHARE
        progress, share = self.recorded.get(spent.steps, (self.progress(spent), share))
        steps_total = (spent.steps + 1) / (progress + share)
        whole_run = Duration(self.seconds, Unit.SECONDS)
        return Moment(progress, share, size, whole_run, steps_total, self._alike, self.rates)

    def seconds_left(self, spent: Spent) -> float | None:
        return max(self._left(spent), 0.0)

    def affords_evaluation(self, spent: Spent) -> bool:
        return self.counts == "train" or self._reserve()["evaluation"] <= _MOST_FOR_AN_EVALUATION * self._left(spent)

    def note_ending(self, what: Ending, seconds: float) -> None:
        """Remember the latest three of each."""
        self._ending_seconds[what] = [*self._ending_seconds.get(what, [])[-2:], seconds]

    def _note_step(self, size: StepSize, seconds: float) -> None:
        """Remember the latest five."""
        self._steps_timed = [*self._steps_timed[-4:], (size, seconds)]

    def _whole(self, spent: Spent) -> float:
        """Seconds of training that the budget will have held, as far as is known now."""
        return spent.train_seconds + max(self._left(spent), 0.0)

    def _left(self, spent: Spent) -> float:
        if self.counts == "train":
            return self.seconds - spent.train_seconds
        return self.seconds - self.clock.elapsed() - sum(self._reserve().values())

    def _reserve(self) -> dict[Ending, float]:
        """Seconds to keep for what comes behind the last step."""
        # A forward pass takes about a third of a step; half keeps the estimate on the safe side.
        guess = 0.5 * self.evaluation_steps * min(self._seconds_of(self.rates.full))
        guess = min(guess, _LARGEST_GUESS * self.seconds)
        reserve: dict[Ending, float] = {"evaluation": guess, "save": self.save_seconds}
        return reserve | {what: max(seconds) for what, seconds in self._ending_seconds.items()}

    def _seconds_of(self, size: StepSize) -> list[float]:
        """What a step of this size would have taken lately, at so many FLOPs a second."""
        timed = self._steps_timed or [(self.rates.full, self.step_seconds)]
        return [seconds * (size.flops / before.flops) for before, seconds in timed]

    def __str__(self) -> str:
        return f"{self.seconds:g} s of {'training' if self.counts == 'train' else 'wall-clock'}"


def make_count_budget(amount: Duration, rates: Rates, growth: Growth | None = None) -> CountBudget:
    """A budget that is not a time.

    Raises:
        UserError: too little for one step, or a unit that is not a budget.
    """
    require_positive(amount, "budget")
    if amount.unit is Unit.PERCENT:
        raise UserError(f"budget = {amount} is a share, of nothing; use 90s, 19073 steps or 10B tokens")
    if amount.unit is Unit.DOLLARS:
        raise UserError(f"budget = {amount} is money, which counts as the time that it pays at the recipe's price")
    steps, first = steps_of(amount, rates), rates.full if growth is None else growth.next(Spent())
    whole = Duration(int(steps + 1e-9), Unit.STEPS)
    if growth is not None and amount.unit is Unit.FLOPS:
        whole = amount
    elif growth is not None and growth.batch.ramp is not None and amount.unit is not Unit.STEPS:
        whole = Duration(round(steps * rates.full.tokens), Unit.TOKENS)
    budget = CountBudget(whole, rates, growth)
    if not whole.amount or not budget.allows_another_step(Spent()):
        raise UserError(
            f"budget = {amount} is less than one step of {first.tokens:,} tokens; {FEW_STEPS} steps, "
            f"{FEW_STEPS * rates.full.tokens:,} tokens, are the least that is of use"
        )
    return budget


def steps_of(duration: Duration, rates: Rates) -> float:
    """How many full steps a duration takes that is not a time, a share or money."""
    match duration.unit:
        case Unit.STEPS:
            return duration.amount
        case Unit.TOKENS:
            return duration.amount / rates.full.tokens
        case Unit.EPOCHS:
            return duration.amount * rates.windows_per_epoch / rates.full.windows
        case Unit.FLOPS:
            return duration.amount / rates.full.flops
        case Unit.TIMES_PARAMETERS:
            return duration.amount * rates.parameters / rates.full.tokens
    raise UserError(f"{duration} cannot be counted in steps; write it in steps, tokens, epochs or as a percentage")
