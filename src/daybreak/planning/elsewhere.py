"""A run on a device that is not here, estimated from the device's data sheet."""

from dataclasses import dataclass
from typing import final

from daybreak.data_sheets import data_sheet, known_devices
from daybreak.errors import UserError
from daybreak.hardware import PrecisionName
from daybreak.model.gpt import count_parameters
from daybreak.model.kernels import Kernels
from daybreak.planning.course import Pace
from daybreak.planning.memory import Memory, largest_micro_batch, memory_of, remedies
from daybreak.recipe import Recipe
from daybreak.training.flops import flops_per_token

USUAL_MFU = 0.35  # of plain GPT-2s on one GPU, compiled, in bf16: 0.3 to 0.45
_START = 60.0  # with compilation
_FORWARD = 1 / 3  # of a training step
_SAVED_BYTES_PER_SECOND = 200e6
_SAVED_BYTES_PER_PARAMETER = 12
_LOSS_ROWS = 8192
_SECONDS_OF_A_SAMPLE = 5.0


@final
@dataclass(frozen=True)
class Estimate:
    """What to expect.

    Attributes:
        micro_batch: rows at once, as the recipe asks or as many as fit.
        fitting: the most rows at once that fit; None where not even one does.
        capacity: bytes of one device.
        remedies: what would make it fit, where it does not.
    """

    device: str
    pace: Pace
    memory: Memory
    micro_batch: int
    fitting: int | None
    capacity: float
    remedies: tuple[str, ...]


def estimate(recipe: Recipe, device: str, count: int, mfu: float) -> Estimate:
    """For `count` devices of a name, of whose dense peak a step reaches the share `mfu`.

    Raises:
        UserError: the device is not in the table, or the batch does not divide among them.
    """
    sheet = data_sheet(device) or data_sheet(f"RTX {device}")
    if sheet is None:
        raise UserError(f"device {device!r} is not in the table; it knows {', '.join(known_devices())}")
    rows = recipe.batch.smallest // recipe.row_length
    if rows % count:
        raise UserError(f"a step's {rows} rows do not divide among {count} devices")
    rows //= count
    shards = count if recipe.parallel.kind == "fsdp" else 1
    kernels = Kernels(_LOSS_ROWS)
    precision: PrecisionName = "bf16"
    fitting = largest_micro_batch(recipe, rows, kernels, precision, sheet.memory_bytes, shards=shards)
    asked = recipe.execution.micro_batch
    micro_batch = fitting if asked == "auto" else asked
    rate = mfu * sheet.peak_flops * count
    flops = flops_per_token(recipe.model, recipe.row_length)
    pace = Pace(
        start=_START,
        step=flops * recipe.batch.tokens / rate,
        evaluation=_FORWARD * flops * recipe.evaluation.tokens / rate,
        sample=_SECONDS_OF_A_SAMPLE,
        save=_SAVED_BYTES_PER_PARAMETER * count_parameters(recipe.model) / _SAVED_BYTES_PER_SECOND,
    )
    memory = memory_of(recipe, micro_batch or 1, kernels, precision, shards=shards)
    would = () if fitting else tuple(remedies(recipe, rows, kernels, precision, sheet.memory_bytes, count))
    return Estimate(sheet.name, pace, memory, micro_batch or 1, fitting, sheet.memory_bytes, would)
