"""What a run has come to and will come to: time and money spent and left, and the loss to expect."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, final

from daybreak.training.budget import Budget, Moment
from daybreak.training.forecast import Forecast
from daybreak.training.schedule import Schedule, learning_rate_share
from daybreak.training.spent import Spent

_PLACES = 32  # of the schedule that is left


class Prospect(NamedTuple):
    """Behind a step.

    Attributes:
        dollars: spent; None without a price.
        loss: the validation loss expected at the end, and half the width of its 95 % band; None while it is too early.
    """

    seconds_spent: float
    seconds_left: float | None
    dollars: float | None
    loss: tuple[float, float] | None


@final
@dataclass
class Outlook:
    """Hears what a run does, and looks ahead when it is asked.

    Attributes:
        price: dollars an hour.
        forecast: None for a run whose losses follow no known curve, as those of a fine-tuning.
    """

    budget: Budget
    schedule: Schedule
    price: float | None
    forecast: Forecast | None

    def note_step(self, moment: Moment, lr_share: float, loss: float) -> None:
        if self.forecast is not None and math.isfinite(loss):
            self.forecast.note_step(moment.progress, moment.share, lr_share, loss)

    def note_validation(self, loss: float) -> None:
        if self.forecast is not None and math.isfinite(loss):
            self.forecast.note_validation(loss)

    def after(self, moment: Moment, spent: Spent) -> Prospect:
        """Behind the step of a moment."""
        progress = moment.progress + moment.share
        left = max(0.0, 1.0 - progress)
        places = [progress + left * (index + 0.5) / _PLACES for index in range(_PLACES)] + [1.0]
        *shares, last = (learning_rate_share(self.schedule, replace(moment, progress=place)) for place in places)
        return Prospect(
            seconds_spent=spent.elapsed_seconds,
            seconds_left=self.budget.seconds_left(spent),
            dollars=None if self.price is None else spent.elapsed_seconds / 3600 * self.price,
            loss=None if self.forecast is None else self.forecast.at_end(left * sum(shares) / _PLACES, last),
        )


def remembered(
    forecast: Forecast,
    steps: Iterable[Mapping[str, Any]],
    validations: Iterable[Mapping[str, Any]],
    spent: Spent,
    peak_lr: float,
) -> Forecast:
    """A forecast that knows what a run has done.

    Args:
        steps: the run's records of steps.
        validations: those of validations.
    """
    measured = {record["step"]: record["loss"] for record in validations}
    for record in steps:
        if record["step"] > spent.steps or record.get("loss") is None:
            continue
        forecast.note_step(record["progress"], record["progress_share"], record["lr"] / peak_lr, record["loss"])
        if measured.get(record["step"]) is not None:
            forecast.note_validation(measured[record["step"]])
    return forecast
