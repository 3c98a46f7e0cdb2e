"""How large each step is: tokens that may grow (a batch ramp), in rows that may grow (a length curriculum)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, final

from pydantic import Field, model_validator

from daybreak.configuration import Configuration, Size
from daybreak.duration import Duration, DurationField, Unit
from daybreak.training.spent import Spent

_COUNTED = (Unit.STEPS, Unit.TOKENS, Unit.PERCENT, Unit.SECONDS)


@final
class LengthCurriculumConfig(Configuration):
    """Row lengths that grow in stages of equal duration; the last stays (Li et al. 2021, arXiv 2108.06084).

    A window is cut into rows that stay in its step, so a step's tokens are the same at every length.

    Attributes:
        lengths: tokens of a row, growing from each stage to the next.
        stage: how long each of them lasts, the last one excepted.
    """

    lengths: tuple[Size, ...] = Field(min_length=1)
    stage: DurationField

    @model_validator(mode="after")
    def _growing(self) -> Self:
        if any(first >= second for first, second in zip(self.lengths, self.lengths[1:], strict=False)):
            raise ValueError(f"curriculum.lengths = {list(self.lengths)} must grow from each to the next")
        _require_counted(self.stage, "curriculum.stage")
        return self

    def length(self, spent: Spent) -> int:
        """Tokens in a row of the next step."""
        stages = _grown(spent, self.stage) / self.stage.amount
        return self.lengths[math.floor(min(stages + 1e-9, len(self.lengths) - 1))]


@final
class BatchRampConfig(Configuration):
    """Tokens a step that grow linearly from `start` to the full batch (Brown et al. 2020, appendix B).

    They grow by `start` at a time, so that a micro-batch that divides the first step divides every one.

    Attributes:
        start: tokens of the first step.
        over: how long they grow.
    """

    start: Size
    over: DurationField

    @model_validator(mode="after")
    def _counted(self) -> Self:
        _require_counted(self.over, "batch.ramp.over")
        return self


@final
class BatchConfig(Configuration):
    """Tokens a step, on all ranks together; and how it grows, if it does.

    Attributes:
        tokens: of a step, as a rule a multiple of `data.window`.
        ramp: how they grow to that number; they do not unless given.
    """

    tokens: Size
    ramp: BatchRampConfig | None = None

    @property
    def smallest(self) -> int:
        """Tokens of the first step; those of every other are a multiple."""
        return self.tokens if self.ramp is None else self.ramp.start

    def tokens_at(self, spent: Spent) -> int:
        """Tokens of the next step."""
        if self.ramp is None:
            return self.tokens
        part = min(1.0, _grown(spent, self.ramp.over) / self.ramp.over.amount)
        return self.ramp.start * (1 + math.floor((self.tokens // self.ramp.start - 1) * part + 1e-9))


@final
@dataclass(frozen=True)
class StepSize:
    """What one step takes, on all ranks together.

    Attributes:
        length: tokens in a row.
        flops: of training, forward and backward.
    """

    windows: int
    tokens: int
    length: int
    flops: float


@final
@dataclass(frozen=True)
class Growth:
    """The sizes of a run's steps.

    Attributes:
        window: tokens in a window.
        flops_per_token: by row length, in the mean over a window.
        recorded: windows and row length of steps that an earlier sitting did but did not save; followed when they are
            done again, so that they come out the same though clocks differ.
    """

    batch: BatchConfig
    curriculum: LengthCurriculumConfig | None
    window: int
    flops_per_token: Mapping[int, float]
    recorded: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def full(self) -> StepSize:
        """The last and largest step."""
        return self._size(self.batch.tokens // self.window, self._full_length)

    def next(self, spent: Spent) -> StepSize:
        """The step that follows when this much is spent; every unit counts what was spent in it."""
        if spent.steps in self.recorded:
            return self._size(*self.recorded[spent.steps])
        length = self._full_length if self.curriculum is None else self.curriculum.length(spent)
        return self._size(self.batch.tokens_at(spent) // self.window, length)

    @property
    def _full_length(self) -> int:
        return max(self.flops_per_token)

    def _size(self, windows: int, length: int) -> StepSize:
        tokens = windows * self.window
        return StepSize(windows, tokens, length, self.flops_per_token[length] * tokens)


def recorded_sizes(records: Sequence[Mapping[str, Any]], growth: Growth) -> dict[int, tuple[int, int]]:
    """Windows and row length by the steps done before, of training records; what cannot be of this run is left out."""
    possible = range(growth.batch.smallest, growth.batch.tokens + 1, growth.batch.smallest)
    return {
        record["step"] - 1: (record["batch_tokens"] // growth.window, record["length"])
        for record in records
        if record.get("length") in growth.flops_per_token and record.get("batch_tokens") in possible
    }


def require_fitting(batch: BatchConfig, curriculum: LengthCurriculumConfig | None, window: int, length: int) -> None:
    """Raises ValueError, which names the nearest fitting value, if a ramp or curriculum does not fit the sizes.

    Args:
        window: tokens in a window, which divides the batch.
        length: tokens in a full row.
    """
    if batch.ramp is not None:
        start = batch.ramp.start
        if batch.tokens % start or start % window:
            windows = batch.tokens // window
            small = [count for count in range(1, math.isqrt(windows) + 1) if windows % count == 0]
            fitting = [window * count for count in (*small, *(windows // count for count in small[1:]))]
            nearest = min(fitting, key=lambda tokens: abs(tokens - start))  # the whole batch is no ramp
            raise ValueError(
                f"batch.ramp.start = {start} must be a multiple of data.window = {window} and divide batch.tokens = "
                f"{batch.tokens}; the nearest that does is {nearest}"
            )
    if curriculum is not None and curriculum.lengths[-1] != length:
        raise ValueError(
            f"curriculum.lengths = {list(curriculum.lengths)} must end with the full row length {length}, the smaller "
            "of data.window and model.context"
        )


def _require_counted(duration: Duration, name: str) -> None:
    if duration.unit not in _COUNTED or duration.amount <= 0:
        raise ValueError(f"{name} = {duration} must be steps, tokens, a time or a percentage above 0")


def _grown(spent: Spent, duration: Duration) -> float:
    """What is spent in a duration's unit; seconds are those of steps, so that no start-up takes a stage."""
    return spent.train_seconds if duration.unit is Unit.SECONDS else spent.amount(duration.unit)
