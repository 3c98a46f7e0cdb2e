"""The course of a run, worked out: how many steps its budget holds, and how long all of it takes."""

import math
from dataclasses import dataclass, replace
from typing import final

from daybreak.duration import Duration, Unit
from daybreak.recipe import Recipe
from daybreak.training.budget import FEW_STEPS, Budget, CountBudget, TimeBudget, steps_of
from daybreak.training.spent import Spent

_ROUNDS = 20  # until steps and what is between them agree
_STRIDES = 500  # in which steps that grow are summed


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

    spent: Spent
    seconds: float

    @property
    def steps(self) -> int:
        return self.spent.steps

    @property
    def tokens(self) -> int:
        return self.spent.tokens


def work_out(recipe: Recipe, budget: Budget, pace: Pace) -> Course:
    """The course that a budget allows at a pace."""
    if isinstance(budget, CountBudget):
        return _with_the_rest(recipe, budget, pace, _end(budget, pace))
    assert isinstance(budget, TimeBudget)
    training = budget.seconds
    course = _course_of(recipe, budget, pace, training)
    if budget.counts == "train":
        return course
    for _ in range(_ROUNDS):
        before = course
        training = max(0.0, budget.seconds - (course.seconds - course.spent.train_seconds))
        course = _course_of(recipe, budget, pace, training)
        if course == before:
            break
    return course


def smallest_useful(recipe: Recipe, budget: Budget, pace: Pace) -> Duration:
    """The smallest budget of the recipe's kind in which it makes steps enough to learn from."""
    full = budget.rates.full
    match recipe.budget.unit:
        case Unit.SECONDS | Unit.DOLLARS:
            few = CountBudget(Duration(FEW_STEPS, Unit.STEPS), budget.rates)
            seconds = math.ceil(_with_the_rest(recipe, few, pace, _end(few, pace)).seconds + pace.step)
            if recipe.budget.unit is Unit.SECONDS:
                return Duration(seconds, Unit.SECONDS)
            assert recipe.price is not None  # validated
            dollars = seconds / 3600 * recipe.price
            last_digit = 10.0 ** (math.floor(math.log10(dollars)) - 2)  # three that count
            return Duration(float(f"{math.ceil(dollars / last_digit) * last_digit:.12g}"), Unit.DOLLARS)
        case Unit.FLOPS:
            return Duration(FEW_STEPS * full.flops, Unit.FLOPS)
        case Unit.TOKENS:
            return Duration(FEW_STEPS * full.tokens, Unit.TOKENS)
    return Duration(FEW_STEPS, Unit.STEPS)


def _course_of(recipe: Recipe, budget: TimeBudget, pace: Pace, training: float) -> Course:
    """Where so many seconds of training lead; FLOPs pass as time does."""
    flops = training / pace.step * budget.rates.full.flops
    if flops < budget.rates.full.flops:
        return _with_the_rest(recipe, budget, pace, Spent())
    counted = CountBudget(Duration(flops, Unit.FLOPS), budget.rates, budget.growth)
    return _with_the_rest(recipe, budget, pace, _end(counted, pace))


def _end(budget: CountBudget, pace: Pace) -> Spent:
    """What is spent at the end of a budget."""
    full = budget.rates.full
    if budget.growth is None:
        steps = int(budget.whole.amount / budget.step_amount(full) + 1e-9)
        return Spent(
            steps=steps,
            windows=steps * full.windows,
            tokens=steps * full.tokens,
            flops=steps * full.flops,
            train_seconds=steps * pace.step,
        )
    stride = max(1, int(budget.whole.amount / budget.step_amount(full) / _STRIDES))
    spent = Spent()
    while True:
        size = budget.moment(spent).size
        left = (budget.whole.amount - spent.amount(budget.whole.unit)) / budget.step_amount(size)
        count = min(stride, int(left + 1e-6))
        if count < 1:
            return spent
        seconds = spent.train_seconds + count * size.flops / full.flops * pace.step
        spent = replace(
            spent,
            steps=spent.steps + count,
            windows=spent.windows + count * size.windows,
            tokens=spent.tokens + count * size.tokens,
            flops=spent.flops + count * size.flops,
            train_seconds=seconds,
            elapsed_seconds=pace.start + seconds,
        )
        spent = replace(spent, progress=budget.progress(spent))


def _with_the_rest(recipe: Recipe, budget: Budget, pace: Pace, spent: Spent) -> Course:
    """With what is before, between and behind the steps."""
    pinned = 1 if recipe.schedule.kind == "wsd" else 0
    trained = pace.start + spent.train_seconds
    seconds = trained
    for _ in range(_ROUNDS):  # what recurs every so many seconds takes seconds itself
        whole = budget.seconds if isinstance(budget, TimeBudget) and budget.counts == "process" else seconds
        evaluations, saves, samples, kept = (
            how_often(every, budget, spent, whole)
            for every in (
                recipe.evaluation.every,
                recipe.checkpoint.every,
                recipe.samples.every,
                recipe.checkpoint.keep_every,
            )
        )
        evaluations = _and_at_the_end(recipe.evaluation.every, evaluations, spent)
        saves = _and_at_the_end(recipe.checkpoint.every, saves, spent) + kept + pinned
        before = seconds
        seconds = trained + pace.evaluation * evaluations + pace.save * saves + pace.sample * samples
        if seconds == before:
            break
    return Course(spent, seconds)


def how_often(every: Duration | None, budget: Budget, spent: Spent, seconds: float) -> int:
    """How often something that recurs is due in a run that takes so long."""
    if every is None:
        return 0
    match every.unit:
        case Unit.PERCENT:
            return int(100 / every.amount + 1e-9)
        case Unit.SECONDS:
            return int(seconds / every.amount + 1e-9)
    return int(spent.steps / steps_of(every, budget.rates) + 1e-9)


def _and_at_the_end(every: Duration | None, times: int, spent: Spent) -> int:
    """With the one at the end, unless one is due there anyway."""
    ends_on_it = every is not None and (
        (every.unit is Unit.PERCENT and math.isclose(100 % every.amount, 0, abs_tol=1e-9))
        or (every.unit is Unit.STEPS and spent.steps % every.amount == 0)
    )
    return times if ends_on_it else times + 1
