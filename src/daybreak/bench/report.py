"""What `bench` found."""

from dataclasses import dataclass
from typing import final

from daybreak.training.execution import Execution


@final
@dataclass(frozen=True)
class Speed:
    """Of whole steps, put together from a micro-batch's time and an update's.

    Attributes:
        milliseconds: of a step.
        gradient_milliseconds: of a micro-batch, forward and backward.
        update_milliseconds: of clipping and the optimizer, once a step.
        flops: model FLOP/s, by nanoGPT's convention.
        peak_flops: what `mfu` is a share of; None if it is not known.
        peak_is: where that figure is from.
    """

    tokens_per_second: float
    milliseconds: float
    gradient_milliseconds: float
    update_milliseconds: float
    flops: float
    peak_flops: float | None
    peak_is: str

    @property
    def mfu(self) -> float | None:
        return None if self.peak_flops is None else self.flops / self.peak_flops


@final
@dataclass(frozen=True)
class MicroBatch:
    """One size of micro-batch, not compiled.

    Attributes:
        peak_bytes: weights, optimizer state, gradients and what a pass keeps, at their most.
    """

    rows: int
    peak_bytes: int
    tokens_per_second: float


@final
@dataclass(frozen=True)
class Comparison:
    """An optimisation and what is lost without it; or why there is nothing to compare.

    Attributes:
        off: the setting that switches it off.
        without, within: tokens/s without it and with it; None where nothing was compared.
        gains: how many times faster a step was with it, round by round; what they differ by is the machine's noise.
        remark: why nothing was compared.
    """

    name: str
    off: str = ""
    without: float | None = None
    within: float | None = None
    gains: tuple[float, ...] = ()
    remark: str = ""

    @property
    def gain(self) -> float | None:
        """How many times faster a step is with it, by the two medians."""
        return None if self.without is None or self.within is None else self.within / self.without


@final
@dataclass(frozen=True)
class Bench:
    """What was found of a recipe on this machine.

    Attributes:
        tokens_per_step: of the recipe; a step is `micro_batches` passes of `execution.micro_batch` rows.
        micro_batch_ended: why the table of micro-batches ends where it does.
        startup: seconds by part, of a process of its own.
    """

    recipe: str
    parameters: int
    device: str
    execution: Execution
    row_length: int
    tokens_per_step: int
    micro_batches: int
    data: str
    speed: Speed
    by_micro_batch: list[MicroBatch]
    micro_batch_ended: str
    comparisons: list[Comparison]
    startup: dict[str, float]
