"""Progress -> share of the peak learning rate.

A warm-up is a line that counts the step itself, (k + 1) / W, so no step runs at zero; decay counts the
steps before it, (k - W) / (N - W), and reaches its end with the budget. One-cycle alone rises as half a cosine.
"""

import math
from typing import Annotated, Literal, final

from pydantic import Field

from daybreak.configuration import Configuration, default_kind
from daybreak.duration import Duration, DurationField, Unit
from daybreak.errors import UserError
from daybreak.training.budget import Moment

_WARMUP = Duration(2, Unit.PERCENT)


@final
class CosineConfig(Configuration):
    """Linear warm-up, then half a cosine down to `final` of the peak, then held for `hold` (Loshchilov and Hutter).

    Attributes:
        warmup: how long the rate rises in a line, from the first step on.
        final: share of the peak that is left at the end.
        hold: how long, at the end, it stays there.
    """

    kind: Literal["cosine"] = "cosine"
    warmup: DurationField = _WARMUP
    final: float = Field(default=0.1, ge=0, le=1)
    hold: DurationField = Duration(0, Unit.PERCENT)


@final
class WarmupStableDecayConfig(Configuration):
    """Linear warm-up, a plateau, then a line down to `final` over the last `decay` (Hu et al. 2024, MiniCPM).

    Attributes:
        warmup: how long the rate rises in a line, from the first step on.
        decay: how long, at the end, it falls; a run can be extended from where that begins.
        final: share of the peak that is left at the end.
    """

    kind: Literal["wsd"]
    warmup: DurationField = _WARMUP
    decay: DurationField = Duration(40, Unit.PERCENT)
    final: float = Field(default=0.0, ge=0, le=1)


@final
class LinearConfig(Configuration):
    """Linear warm-up, then a line down to `final` of the peak.

    Attributes:
        warmup: how long the rate rises in a line, from the first step on.
        final: share of the peak that is left at the end.
    """

    kind: Literal["linear"]
    warmup: DurationField = _WARMUP
    final: float = Field(default=0.0, ge=0, le=1)


@final
class OneCycleConfig(Configuration):
    """Half a cosine up from `initial`, half a cosine down to `final` (Smith and Topin 2017).

    Attributes:
        warmup: how long the rate rises.
        initial: share of the peak at the first step.
        final: share of the peak that is left at the end.
    """

    kind: Literal["one-cycle"]
    warmup: DurationField = Duration(30, Unit.PERCENT)
    initial: float = Field(default=0.04, ge=0, le=1)
    final: float = Field(default=4e-6, ge=0, le=1)


@final
class ConstantConfig(Configuration):
    """Linear warm-up, then the peak to the end.

    Attributes:
        warmup: how long the rate rises in a line, from the first step on.
    """

    kind: Literal["constant"]
    warmup: DurationField = _WARMUP


Schedule = CosineConfig | WarmupStableDecayConfig | LinearConfig | OneCycleConfig | ConstantConfig
ScheduleConfig = Annotated[Schedule, Field(discriminator="kind"), default_kind("cosine")]


def learning_rate_share(schedule: Schedule, moment: Moment) -> float:
    """The share of the peak learning rate for a step, in [0, 1]."""
    warmup = moment.share_of(schedule.warmup, "schedule.warmup")
    warmed = min(1.0, (moment.progress + moment.share) / warmup) if warmup else 1.0
    progress = moment.progress
    match schedule:
        case ConstantConfig():
            return warmed
        case CosineConfig(final=final):
            end = 1.0 - moment.share_of(schedule.hold, "schedule.hold")
            return warmed * _between(1.0, final, _cosine(_part(progress, warmup, end)))
        case WarmupStableDecayConfig(final=final):
            return warmed * _between(
                1.0, final, _part(progress, 1.0 - moment.share_of(schedule.decay, "schedule.decay"), 1.0)
            )
        case LinearConfig(final=final):
            return warmed * _between(1.0, final, _part(progress, warmup, 1.0))
        case OneCycleConfig(initial=initial, final=final):
            if progress < warmup:
                return _between(initial, 1.0, _cosine(progress / warmup))
            return _between(1.0, final, _cosine(_part(progress, warmup, 1.0)))


def is_before_decay(schedule: Schedule, moment: Moment) -> bool:
    """Whether the step is one of a warm-up or plateau that would be the same with a larger budget."""
    match schedule:
        case ConstantConfig():
            return True
        case WarmupStableDecayConfig():
            return moment.progress <= 1.0 - moment.share_of(schedule.decay, "schedule.decay")
    return False


def check_schedule(schedule: Schedule, moment: Moment) -> None:
    """See at a run's first moment that its peak will be reached and left.

    Raises:
        UserError: warm-up and what comes at the end leave no room for each other, or cannot be counted here.
    """
    ending = {"cosine": "hold", "wsd": "decay"}.get(schedule.kind)
    last = moment.share_of(getattr(schedule, ending), f"schedule.{ending}") if ending else 0.0
    first = moment.share_of(schedule.warmup, "schedule.warmup")
    if first >= 1.0 or first + last > 1.0 + 1e-9:
        and_last = f" and schedule.{ending} = {getattr(schedule, ending)}" if ending and last else ""
        raise UserError(
            f"schedule.warmup = {schedule.warmup}{and_last} do not fit into the whole run of {moment.whole}; "
            "use shares, as schedule.warmup=4%"
        )


def _part(progress: float, start: float, end: float) -> float:
    """How far `progress` is on the way from `start` to `end`, in [0, 1]."""
    if progress <= start:
        return 0.0
    return 1.0 if progress >= end else (progress - start) / (end - start)


def _cosine(part: float) -> float:
    return 0.5 * (1.0 - math.cos(math.pi * part))


def _between(first: float, last: float, part: float) -> float:
    return first + (last - first) * part
