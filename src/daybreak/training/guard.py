"""One loss scale, one finite check and one watch for spikes, for the whole step on all ranks."""

import math
import statistics
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, final

from pydantic import Field

from daybreak.configuration import Configuration

_GROWTH_INTERVAL = 2000
_LARGEST_SCALE = 2.0**24

Count = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Verdict = Literal["good", "not finite", "spike"]


@final
class GuardConfig(Configuration):
    """What a run survives, and when it gives up.

    Attributes:
        most_skipped: steps in a row whose loss or gradient is not finite, with which the run ends.
        spike: how many standard deviations above the mean of the latest losses a loss is a spike, which takes the run
            back to its last checkpoint and past the windows since; 0 looks for none.
        spike_window: how many losses that mean is over; before there are as many, no loss is a spike.
        most_rollbacks: spikes, each within one such window of the one before, with which the run ends.
    """

    most_skipped: int = Field(default=20, gt=0)
    spike: float = Field(default=0.0, ge=0)
    spike_window: int = Field(default=128, ge=8)
    most_rollbacks: int = Field(default=5, gt=0)


@final
@dataclass(frozen=True)
class GuardRecord:
    """What a guard has seen; saved with the run.

    Attributes:
        scaling: whether the loss is scaled at all, as in fp16.
        scale: what the loss is multiplied by.
        skipped: steps refused so far because they were not finite.
        skipped_in_a_row: refused since the last good one.
        good_in_a_row: since the scale last changed.
        rollbacks: spikes so far.
        rollbacks_in_a_row: with fewer than `spike_window` good steps between them.
        losses: the latest good ones, as many as a spike is judged by.
    """

    scaling: bool
    scale: Scale = 1.0
    skipped: Count = 0
    skipped_in_a_row: Count = 0
    good_in_a_row: Count = 0
    rollbacks: Count = 0
    rollbacks_in_a_row: Count = 0
    good_since_rollback: Count = 0
    losses: list[Finite] = field(default_factory=list)


@final
@dataclass
class Guard:
    """Decides from a step's loss and gradient norm whether the optimizer may use it.

    Both figures are of the whole step, so all ranks decide alike. In fp16 the loss is multiplied by `scale`, which
    halves after a step that overflowed and doubles after 2000 that did not (Micikevicius et al. 2017). The other
    attributes are those of its record.
    """

    config: GuardConfig
    scaling: bool
    scale: float = 1.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    good_in_a_row: int = 0
    rollbacks: int = 0
    rollbacks_in_a_row: int = 0
    good_since_rollback: int = 0
    losses: list[float] = field(default_factory=list)

    def judge(self, loss: float, gradient_norm: float) -> Verdict:
        """Count the step and say what it is."""
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            self.skipped += 1
            self.skipped_in_a_row += 1
            self.good_in_a_row = 0
            if self.scaling:
                self.scale = max(self.scale / 2, 1.0)
            return "not finite"
        self.skipped_in_a_row = 0
        if self._is_spike(loss):
            self.rollbacks += 1
            self.rollbacks_in_a_row += 1
            self.good_since_rollback = 0
            return "spike"
        self.good_in_a_row += 1
        if self.scaling and self.good_in_a_row >= _GROWTH_INTERVAL:
            self.scale, self.good_in_a_row = min(2 * self.scale, _LARGEST_SCALE), 0
        if self.config.spike:
            self.losses = [*self.losses, loss][-self.config.spike_window :]
            self.good_since_rollback += 1
            if self.good_since_rollback >= self.config.spike_window:
                self.rollbacks_in_a_row = 0
        return "good"

    def record(self) -> GuardRecord:
        """What `resumed` takes."""
        return GuardRecord(**{name: value for name, value in vars(self).items() if name != "config"})

    def resumed(self, record: GuardRecord) -> "Guard":
        """The guard as it was when a record of it was taken."""
        before = Guard(self.config, **vars(record))
        if before.scaling == self.scaling:
            return before
        # In another precision: the scale begins anew.
        return replace(before, scaling=self.scaling, scale=self.scale, good_in_a_row=0)

    def _is_spike(self, loss: float) -> bool:
        if not self.config.spike or len(self.losses) < self.config.spike_window:
            return False
        deviation = statistics.stdev(self.losses)
        return loss - statistics.fmean(self.losses) > self.config.spike * deviation > 0


def make_guard(config: GuardConfig, precision: str) -> Guard:
    scaling = precision == "fp16"
    return Guard(config, scaling=scaling, scale=2.0**16 if scaling else 1.0)
