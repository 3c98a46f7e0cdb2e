"""The course of a run, worked out: how many steps its budget holds, and how long all of it takes."""

import math
from dataclasses import dataclass
from typing import final

from daybreak.duration import Duration, Unit
from daybreak.recipe import Recipe
from daybreak.training.budget import FEW_STEPS, Budget, CountBudget, TimeBudget, steps_of
from daybreak.training.spent import Spent


@final
@dataclass(frozen=True)
class Pace:
    """Seconds of what a run does.

    Attributes:
        start: until the first step may begin.
        step: a full one.
        evaluation, sample, save: one of each.
    """

    start: float
    step: float
    evaluation: float
    sample: float
    save: float


@final
@dataclass(frozen=True)
class Course:
    """What a run comes to at its end.

    Attributes:
        seconds: from process start to the last save.
    """

    steps: float
    tokens: float
    flops: float
    seconds: float


def work_out(recipe: Recipe, budget: Budget, pace: Pace) -> Course:
    """The course that a budget allows at a pace."""
    overhead = _Overhead.of(recipe, budget, pace)
    if isinstance(budget, TimeBudget):
        whole = budget.seconds
        training = whole if budget.counts == "train" else overhead.training_within(whole, pace)
        flops = max(0.0, training) / pace.step * budget.rates.full.flops
        end = _end_after(budget, flops)
        return Course(end.steps, end.tokens, end.flops, overhead.seconds_around(training, end.steps))
    assert isinstance(budget, CountBudget)
    end = _end(budget)
    training = end.flops / budget.rates.full.flops * pace.step
    return Course(end.steps, end.tokens, end.flops, overhead.seconds_around(training, end.steps))


def smallest_useful_seconds(recipe: Recipe, budget: Budget, pace: Pace) -> float:
    """Of a run of the fewest steps that are of use, from process start to its end."""
    return math.ceil(_Overhead.of(recipe, budget, pace).seconds_around(FEW_STEPS * pace.step, FEW_STEPS))


@final
@dataclass(frozen=True)
class _Overhead:
    """Seconds that a run does not train: at fixed points, for each step, and for each second of it."""

    fixed: float
    per_step: float
    per_second: float

    @classmethod
    def of(cls, recipe: Recipe, budget: Budget, pace: Pace) -> "_Overhead":
        recurring = (
            (recipe.evaluation.every, pace.evaluation, True),
            (recipe.samples.every, pace.sample, False),
            (recipe.checkpoint.every, pace.save, True),
            (recipe.checkpoint.keep_every, pace.save, False),
        )
        fixed, per_step, per_second = pace.start, 0.0, 0.0
        for every, seconds, at_the_end in recurring:
            at_its_end = 1 if at_the_end else 0
            if every is None:
                fixed += at_its_end * seconds
            elif every.unit is Unit.PERCENT:
                fixed += max(at_its_end, int(100 / every.amount + 1e-9)) * seconds
            elif every.unit is Unit.SECONDS:
                per_second += seconds / every.amount
                fixed += at_its_end * seconds
            else:
                per_step += seconds / steps_of(every, budget.rates)
                fixed += at_its_end * seconds
        return cls(fixed, per_step, min(per_second, 0.9))

    def training_within(self, seconds: float, pace: Pace) -> float:
        """Of a run that takes so long, the seconds of its steps."""
        left = seconds * (1 - self.per_second) - self.fixed
        return max(0.0, left) * pace.step / (pace.step + self.per_step)

    def seconds_around(self, training: float, steps: float) -> float:
        """Of a run whose steps take so long, all seconds."""
        return (training + steps * self.per_step + self.fixed) / (1 - self.per_second)


def _end_after(budget: Budget, flops: float) -> Spent:
    """What is spent after so many FLOPs, which is how a time passes."""
    whole = max(flops, budget.rates.full.flops * 1e-9)
    return _end(CountBudget(Duration(whole, Unit.FLOPS), budget.rates, budget.growth))


def _end(budget: CountBudget) -> Spent:
    """What is spent at the end of a budget."""
    full = budget.rates.full
    if budget.growth is None:
        steps = int(budget.whole.amount / budget.step_amount(full) + 1e-9)
        return Spent(steps=steps, windows=steps * full.windows, tokens=steps * full.tokens, flops=steps * full.flops)
    spent = Spent()
    while budget.allows_another_step(spent):
        spent = budget.after_step(spent, budget.moment(spent).size, seconds=0.0, elapsed=0.0)
    return spent
