"""What a run may spend, and how much of it is spent.

`progress` is the share of the budget that is spent, from 0 to 1. Schedules see only progress, so
that a run in hours and a run in steps decay alike.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, final

from pydantic import Field

from daybreak.duration import Duration, Unit, require_positive
from daybreak.errors import UserError

Counts = Literal["process", "train"]
Count = Annotated[int, Field(ge=0, lt=2**62)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
_LARGEST_GUESS = 0.4  # of a time budget, kept for an evaluation before one was timed
_UNKNOWN_SHARE = 1e-9  # of a step before any was measured: warm-ups in percent begin near zero


@final
@dataclass(frozen=True)
class Spent:
    """What a run has used so far; saved with it.

    Attributes:
        windows: the run's place in the order of windows.
        train_seconds: in steps alone, without start-up, compilation, evaluation and saving.
        elapsed_seconds: from process start, over all sittings; downtime is not counted.
        progress: the highest share of the budget seen.
    """

    steps: Count = 0
    windows: Count = 0
    tokens: Count = 0
    train_seconds: Seconds = 0.0
    elapsed_seconds: Seconds = 0.0
    progress: Share = 0.0


@final
@dataclass(frozen=True)
class Rates:
    """What turns one unit into another: all known before a run begins."""

    tokens_per_step: int
    windows_per_step: int
    windows_per_epoch: int
    flops_per_token: float
    parameters: int


@final
@dataclass(frozen=True)
class Moment:
    """Where a step stands in its budget.

    Attributes:
        progress: share spent before the step.
        share: share that the step itself takes.
        steps_total: steps in the whole budget; at the pace so far where it is a time.
        seconds_total: the budget, where it is a time.
    """

    progress: float
    share: float
    steps_total: float
    seconds_total: float | None
    rates: Rates

    def share_of(self, duration: Duration) -> float:
        """The share of the budget that `duration` stands for."""
        match duration.unit:
            case Unit.PERCENT:
                return duration.amount / 100
            case Unit.SECONDS if self.seconds_total is not None:
                return duration.amount / self.seconds_total
            case Unit.STEPS | Unit.TOKENS | Unit.EPOCHS:
                return steps_of(duration, self.rates) / self.steps_total
        raise UserError(f"{duration} cannot be counted against this run's budget; use a percentage")


class Budget(ABC):
    """A budget in one of its two kinds, steps or seconds."""

    rates: Rates

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
    def note_ending(self, *, evaluation: float = 0.0, sample: float = 0.0, save: float = 0.0) -> None:
        """Hear how long an evaluation, a sample or a save took: the last of each must fit behind the last step."""

    @abstractmethod
    def _note_step(self, seconds: float) -> None:
        """Hear how long a step took: the next must fit."""

    @abstractmethod
    def seconds_left(self, spent: Spent) -> float | None:
        """Until the end at the pace so far; None before any step."""

    @abstractmethod
    def __str__(self) -> str: ...

    @final
    def after_step(self, spent: Spent, *, seconds: float, elapsed: float) -> Spent:
        """What is spent once a step is done that took `seconds`, at `elapsed` seconds of the run."""
        after = replace(
            spent,
            steps=spent.steps + 1,
            windows=spent.windows + self.rates.windows_per_step,
            tokens=spent.tokens + self.rates.tokens_per_step,
            train_seconds=spent.train_seconds + seconds,
            elapsed_seconds=elapsed,
        )
        self._note_step(seconds)
        return replace(after, progress=self.progress(after))


@final
@dataclass(frozen=True)
class StepBudget(Budget):
    """A number of steps."""

    steps: int
    rates: Rates

    def allows_another_step(self, spent: Spent) -> bool:
        return spent.steps < self.steps

    def progress(self, spent: Spent) -> float:
        return spent.steps / self.steps

    def moment(self, spent: Spent) -> Moment:
        return Moment(self.progress(spent), 1 / self.steps, self.steps, None, self.rates)

    def note_ending(self, *, evaluation: float = 0.0, sample: float = 0.0, save: float = 0.0) -> None:
        """Steps are counted, not timed."""

    def _note_step(self, seconds: float) -> None:
        """Steps are counted, not timed."""

    def seconds_left(self, spent: Spent) -> float | None:
        return spent.train_seconds / spent.steps * (self.steps - spent.steps) if spent.steps else None

    def __str__(self) -> str:
        return f"{self.steps:,} steps of {self.rates.tokens_per_step:,} tokens"


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
        evaluation_steps: tokens of an evaluation, counted in steps; sizes the reserve until one was timed.
        step_seconds: what a step may take, until one was done.
        save_seconds: what a save may take, until one was timed.
        recorded: progress and share of steps that an earlier sitting did but did not save; followed
            when they are done again, so that they come out the same.
    """

    seconds: float
    counts: Counts
    clock: Clock
    rates: Rates
    evaluation_steps: float = 0.0
    step_seconds: float = 0.0
    save_seconds: float = 0.0
    recorded: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    _ending_seconds: dict[str, list[float]] = field(default_factory=dict)
    _step_seconds: list[float] = field(default_factory=list)

    def allows_another_step(self, spent: Spent) -> bool:
        return self._left(spent) > self._longest_step()

    def progress(self, spent: Spent) -> float:
        whole = self._whole(spent)
        return max(spent.progress, spent.train_seconds / whole if whole else 1.0)

    def moment(self, spent: Spent) -> Moment:
        whole = self._whole(spent)
        step_seconds = spent.train_seconds / spent.steps if spent.steps else self.step_seconds
        share = min(1.0, step_seconds / whole) if step_seconds and whole else _UNKNOWN_SHARE
        progress, share = self.recorded.get(spent.steps, (self.progress(spent), share))
        steps_total = (spent.steps + 1) / (progress + share)
        return Moment(progress, share, steps_total, self.seconds, self.rates)

    def seconds_left(self, spent: Spent) -> float | None:
        return max(self._left(spent), 0.0)

    def note_ending(self, *, evaluation: float = 0.0, sample: float = 0.0, save: float = 0.0) -> None:
        """Remember the latest three of each."""
        for what, seconds in (("evaluation", evaluation), ("sample", sample), ("save", save)):
            if seconds:
                self._ending_seconds[what] = [*self._ending_seconds.get(what, [])[-2:], seconds]

    def _note_step(self, seconds: float) -> None:
        """Remember the latest five."""
        self._step_seconds = [*self._step_seconds[-4:], seconds]

    def _whole(self, spent: Spent) -> float:
        """Seconds of training that the budget will have held, as far as is known now."""
        return spent.train_seconds + max(self._left(spent), 0.0)

    def _left(self, spent: Spent) -> float:
        if self.counts == "train":
            return self.seconds - spent.train_seconds
        # A forward pass takes about a third of a step; half keeps the estimate on the safe side.
        guess = 0.5 * self.evaluation_steps * min(self._step_seconds, default=self.step_seconds)
        guess = min(guess, _LARGEST_GUESS * self.seconds)
        reserve = {"evaluation": guess, "save": self.save_seconds}
        reserve |= {what: max(seconds) for what, seconds in self._ending_seconds.items()}
        return self.seconds - self.clock.elapsed() - sum(reserve.values())

    def _longest_step(self) -> float:
        return max(self._step_seconds, default=self.step_seconds)

    def __str__(self) -> str:
        return f"{self.seconds:g} s of {'training' if self.counts == 'train' else 'wall-clock'}"


def make_step_budget(amount: Duration, rates: Rates) -> StepBudget:
    """The steps that a budget stands for which is not a time.

    Raises:
        UserError: too little for one step, or a unit that is not a budget.
    """
    require_positive(amount, "budget")
    if amount.unit is Unit.PERCENT:
        raise UserError(f"budget = {amount} is a share, of nothing; use 90s, 19073 steps or 10B tokens")
    if amount.unit is Unit.DOLLARS:
        raise UserError(f"budget = {amount}: budgets in money do not work yet; use hours, as 24h")
    steps = int(steps_of(amount, rates) + 1e-9)
    if steps < 1:
        raise UserError(f"budget = {amount} is less than one step of {rates.tokens_per_step:,} tokens")
    return StepBudget(steps, rates)


def steps_of(duration: Duration, rates: Rates) -> float:
    """How many steps a duration takes that is not a time, a share or money."""
    match duration.unit:
        case Unit.STEPS:
            return duration.amount
        case Unit.TOKENS:
            return duration.amount / rates.tokens_per_step
        case Unit.EPOCHS:
            return duration.amount * rates.windows_per_epoch / rates.windows_per_step
        case Unit.FLOPS:
            return duration.amount / (rates.flops_per_token * rates.tokens_per_step)
        case Unit.TIMES_PARAMETERS:
            return duration.amount * rates.parameters / rates.tokens_per_step
    raise UserError(f"{duration} cannot be counted in steps")


def is_due(every: Duration | None, before: Spent, after: Spent) -> bool:
    """Whether a multiple of `every` was passed between two states of a run."""
    if every is None:
        return False
    match every.unit:
        case Unit.STEPS:
            amounts = float(before.steps), float(after.steps)
        case Unit.TOKENS:
            amounts = float(before.tokens), float(after.tokens)
        case Unit.SECONDS:
            amounts = before.elapsed_seconds, after.elapsed_seconds
        case Unit.PERCENT:
            amounts = 100 * before.progress, 100 * after.progress
        case _:
            raise ValueError(f"{every} is no interval")
    before_count, after_count = (math.floor(amount / every.amount + 1e-9) for amount in amounts)
    return before_count < after_count
