"""What is said of a budget that does not suffice: before a run begins, and where its time ended too soon."""

import math

from daybreak.duration import Duration, Unit
from daybreak.progress import say
from daybreak.training.budget import FEW_STEPS, Budget, Clock, TimeBudget
from daybreak.training.spent import Spent

_DECAYED = 0.95  # progress of the last step, with which a schedule is as good as over


def warn_of_few_steps(budget: Budget, step_seconds: float) -> None:
    """Say before it begins that a budget is too small to learn from, and which is not."""
    steps = budget.moment(Spent()).steps_total
    if steps >= FEW_STEPS:
        return
    least = f"{FEW_STEPS} steps"
    if isinstance(budget, TimeBudget):
        started = budget.seconds - (budget.seconds_left(Spent()) or 0.0)
        least = str(Duration(math.ceil(started + FEW_STEPS * step_seconds), Unit.SECONDS))
    say(f"warning: about {steps:.0f} steps fit into {budget}, too few to learn from; {least} would be enough here")


def warn_of_an_end(budget: TimeBudget, spent: Spent, clock: Clock) -> None:
    """Say that a run's clock ran over, or that it ended with a learning rate that had yet to fall."""
    over = clock.elapsed() - budget.seconds
    if budget.counts == "process" and over > max(3.0, 0.01 * budget.seconds):
        say(
            f"warning: {over:.0f} s over {budget}, at a progress of {spent.progress:.0%}: this start, or the last "
            "evaluation (evaluation.tokens), took longer than there was time for"
        )
    elif spent.progress < _DECAYED:
        say(
            f"warning: the time was over at a progress of {spent.progress:.0%}, before the learning rate had fallen: "
            "steps or evaluations took much longer than those before them; with evaluation.every=never, or a larger "
            "budget, it ends decayed"
        )
