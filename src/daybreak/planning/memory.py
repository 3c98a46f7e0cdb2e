"""Memory by part, by formulas, on each device; and what would make a recipe fit."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from daybreak.hardware import PrecisionName
from daybreak.model.gpt import count_parameters
from daybreak.model.kernels import Kernels
from daybreak.recipe import Recipe
from daybreak.training.freezing import count_trained
from daybreak.training.microbatch import LOGIT_BYTES, row_bytes
from daybreak.training.optimizer import moment_bytes

_FP32_BYTES = 4
_UNUSABLE = 0.08  # of a device's memory: its context, and what fragments


@final
@dataclass(frozen=True)
class Memory:
    """Bytes on each device.

    Attributes:
        head: the logits of a chunk, and the gradient of the head while it is summed.
    """

    weights: int
    gradients: int
    moments: int
    activations: int
    head: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.activations + self.head


def memory_of(
    recipe: Recipe, micro_batch: int, kernels: Kernels, precision: PrecisionName, *, shards: int = 1
) -> Memory:
    """By part.

    Args:
        micro_batch: rows at once.
        shards: devices that weights, gradients and moments are divided among.
    """
    model, length = recipe.model, recipe.row_length
    parameters, trained = count_parameters(model) / shards, count_trained(model, recipe.freeze) / shards
    activations = row_bytes(model, length, kernels, precision, recompute=recipe.execution.recompute is True)
    # Where the head is not cut into chunks, its logits are among the activations.
    chunk = min(micro_batch * length, kernels.loss_rows)
    head = LOGIT_BYTES * model.vocab_size * chunk + 2 * _FP32_BYTES * model.vocab_size * model.dim
    return Memory(
        weights=int(_FP32_BYTES * parameters),
        gradients=int(_FP32_BYTES * trained),
        moments=int(moment_bytes(recipe.optimizer) * trained),
        activations=micro_batch * activations,
        head=head,
    )


def largest_micro_batch(
    recipe: Recipe, rows: int, kernels: Kernels, precision: PrecisionName, capacity: float, *, shards: int = 1
) -> int | None:
    """The most rows at once that divide `rows` and fit a device; None if not even one does."""
    usable = (1 - _UNUSABLE) * capacity
    divisors = (count for count in range(rows, 0, -1) if rows % count == 0)
    fits = (count for count in divisors if memory_of(recipe, count, kernels, precision, shards=shards).total <= usable)
    return next(fits, None)


def remedies(
    recipe: Recipe, rows: int, kernels: Kernels, precision: PrecisionName, capacity: float, count: int
) -> Iterator[str]:
    """Settings with which a recipe fits that does not, the mildest first."""
    recomputing = recipe.model_copy(update={"execution": recipe.execution.model_copy(update={"recompute": True})})
    if largest_micro_batch(recomputing, rows, kernels, precision, capacity) is not None:
        yield "execution.recompute=true"
    for devices in (2, 4, 8, 16, 32, 64):
        if devices >= count and largest_micro_batch(recipe, rows, kernels, precision, capacity, shards=devices):
            yield f"parallel.kind=fsdp on {devices} devices"
            return
