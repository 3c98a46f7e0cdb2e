"""One loss scale and one finite check for the whole step."""

import math
from dataclasses import dataclass
from typing import final

from daybreak.errors import UserError

_MOST_SKIPPED = 20
_GROWTH_INTERVAL = 2000
_LARGEST_SCALE = 2.0**24


@final
@dataclass
class Guard:
    """Decides from a step's loss and gradient norm whether the optimizer may use it.

    In fp16 the loss is multiplied by `scale`, which halves after a step that overflowed and doubles
    after 2000 that did not (Micikevicius et al. 2017); elsewhere it stays 1.

    Attributes:
        skipped: steps refused so far.
        skipped_in_a_row: refused since the last good one.
        good_in_a_row: since the scale last changed.
    """

    scaling: bool
    scale: float = 1.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    good_in_a_row: int = 0

    def accepts(self, loss: float, gradient_norm: float) -> bool:
        """Count the step and say whether it is finite.

        Raises:
            UserError: 20 steps in a row were not.
        """
        if math.isfinite(loss) and math.isfinite(gradient_norm):
            self.skipped_in_a_row = 0
            self.good_in_a_row += 1
            if self.scaling and self.good_in_a_row >= _GROWTH_INTERVAL:
                self.scale, self.good_in_a_row = min(2 * self.scale, _LARGEST_SCALE), 0
            return True
        self.skipped += 1
        self.skipped_in_a_row += 1
        self.good_in_a_row = 0
        if self.scaling:
            self.scale = max(self.scale / 2, 1.0)
        if self.skipped_in_a_row >= _MOST_SKIPPED:
            raise UserError(
                f"{_MOST_SKIPPED} steps in a row had a loss or gradient that is not finite; the last good checkpoint "
                "is kept. Begin again in a new --out with a lower optimizer.lr, or with execution.precision=fp32"
            )
        return False


def make_guard(precision: str) -> Guard:
    scaling = precision == "fp16"
    return Guard(scaling=scaling, scale=2.0**16 if scaling else 1.0)
