"""What a run has used so far, in every unit, and whether something that recurs is due."""

import math
from dataclasses import dataclass
from typing import Annotated, final

from pydantic import Field

from daybreak.duration import Duration, Unit

Count = Annotated[int, Field(ge=0, lt=2**62)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


@final
@dataclass(frozen=True)
class Spent:
    """What a run has used so far; saved with it.

    Attributes:
        windows: the run's place in the order of windows.
        flops: of training, by the row lengths that its steps had.
        train_seconds: in steps alone, without start-up, compilation, evaluation and saving.
        elapsed_seconds: from process start, over all sittings; downtime is not counted.
        progress: the highest share of the budget seen.
        before_decay: no step lowered the learning rate yet, so that a larger budget would have come to here as well.
    """

    steps: Count = 0
    windows: Count = 0
    tokens: Count = 0
    flops: Amount = 0.0
    train_seconds: Amount = 0.0
    elapsed_seconds: Amount = 0.0
    progress: Share = 0.0
    before_decay: bool = False

    def amount(self, unit: Unit) -> float:
        """What is spent in steps, tokens, FLOPs, seconds or percent."""
        match unit:
            case Unit.STEPS:
                return self.steps
            case Unit.TOKENS:
                return self.tokens
            case Unit.FLOPS:
                return self.flops
            case Unit.SECONDS:
                return self.elapsed_seconds
            case Unit.PERCENT:
                return 100 * self.progress
        raise ValueError(f"a run does not count {unit}")


def is_due(every: Duration | None, before: Spent, after: Spent) -> bool:
    """Whether a multiple of `every` was passed between two states of a run."""
    if every is None:
        return False
    earlier, later = (math.floor(spent.amount(every.unit) / every.amount + 1e-9) for spent in (before, after))
    return earlier < later
