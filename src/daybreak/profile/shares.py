"""What evaluations take of a run, and whether the step behind one is slower."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, final

from daybreak.duration import Duration, Unit
from daybreak.errors import UserError
from daybreak.training.budget import Rates, steps_of


@final
@dataclass(frozen=True)
class Shares:
    """Times of a few steps with evaluations between them, not profiled.

    Attributes:
        step_milliseconds: median of the steps that no evaluation came before, but for the first.
        first_milliseconds: of the first step of all.
        after_evaluation_milliseconds: median of the steps right behind an evaluation.
        evaluation_seconds: median.
        evaluation_share: of the recipe's whole run.
    """

    step_milliseconds: float
    first_milliseconds: float
    after_evaluation_milliseconds: float
    evaluation_seconds: float
    evaluation_share: float


def after_evaluations(
    steps: Sequence[Mapping[str, Any]], validations: Sequence[Mapping[str, Any]]
) -> tuple[float, float]:
    """Median milliseconds of steps that follow an evaluation, and of all others but the first."""
    evaluated = {record["step"] for record in validations}
    behind = [step["milliseconds"] for step in steps if step["step"] - 1 in evaluated]
    others = [step["milliseconds"] for step in steps[1:] if step["step"] - 1 not in evaluated]
    return median(behind), median(others)


def evaluation_share(
    every: Duration | None, budget: Duration, rates: Rates, step_seconds: float, evaluation_seconds: float
) -> float:
    """The share of a run's time that evaluations take, the one at its end included.

    Args:
        rates: of the recipe's own steps.
        step_seconds: of one of them.

    Raises:
        UserError: the budget is in a unit that says nothing of time.
    """
    if budget.unit is Unit.SECONDS:
        seconds = budget.amount
        count = _count(every, rates, seconds / step_seconds, seconds)
        if every is not None and every.unit is not Unit.PERCENT and every.unit is not Unit.SECONDS:
            # Evaluations take the time of steps, of which there are then fewer.
            count /= 1 + evaluation_seconds * count / seconds
        return min(1.0, count * evaluation_seconds / seconds)
    if budget.unit is Unit.PERCENT:
        raise UserError(f"budget = {budget} says nothing of time; use 90s or 19073 steps")
    steps = steps_of(budget, rates)
    evaluating = _count(every, rates, steps, steps * step_seconds) * evaluation_seconds
    return evaluating / (evaluating + steps * step_seconds)


def _count(every: Duration | None, rates: Rates, steps: float, seconds: float) -> float:
    """How many evaluations there are in so many steps that take so many seconds; at least the last."""
    if every is None:
        return 1.0
    match every.unit:
        case Unit.PERCENT:
            count = 100 / every.amount
        case Unit.SECONDS:
            count = seconds / every.amount
        case _:
            count = steps / steps_of(every, rates)
    return max(1.0, min(count, steps))
