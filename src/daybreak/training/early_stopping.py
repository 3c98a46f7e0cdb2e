"""When a run ends before its budget: its validation loss no longer falls."""

import math
from dataclasses import dataclass
from typing import Annotated, final

from pydantic import Field

from daybreak.configuration import Configuration


@final
class EarlyStopConfig(Configuration):
    """End a run once its validation loss has stopped falling; it ends with the weights of the lowest.

    Attributes:
        patience: evaluations in a row without a new lowest loss.
        least: nats by which a loss must lie below the lowest to count.
    """

    patience: int = Field(default=3, gt=0)
    least: float = Field(default=0.0, ge=0)


@final
@dataclass(frozen=True)
class StandstillRecord:
    """How long a validation loss has not fallen; kept in checkpoints, so that a resumed run ends where it would have.

    Attributes:
        lowest: the last loss that counted as lower than those before it; None before any.
        evaluations: since then.
    """

    lowest: Annotated[float, Field(allow_inf_nan=False)] | None = None
    evaluations: Annotated[int, Field(ge=0)] = 0


@final
@dataclass
class Standstill:
    """Hears every validation loss, and says when they are enough.

    Attributes:
        config: None for a run that spends its budget in any case.
    """

    config: EarlyStopConfig | None
    record: StandstillRecord = StandstillRecord()

    def note(self, loss: float) -> None:
        """One more was measured; one that is no number is no lower one."""
        least = 0.0 if self.config is None else self.config.least
        if math.isfinite(loss) and (self.record.lowest is None or loss < self.record.lowest - least):
            self.record = StandstillRecord(loss)
        else:
            self.record = StandstillRecord(self.record.lowest, self.record.evaluations + 1)

    def ends_run(self) -> bool:
        """Whether the patience is used up."""
        return self.config is not None and self.record.evaluations >= self.config.patience
