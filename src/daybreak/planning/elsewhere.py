"""A run on a device that is not here, estimated from the device's data sheet."""

import difflib
import re

from daybreak.compose import SAVED_BYTES_PER_SECOND, checkpoint_bytes
from daybreak.data.batches import largest_divisor
from daybreak.data_sheets import data_sheet, known_devices
from daybreak.errors import UserError
from daybreak.hardware import PrecisionName
from daybreak.model.kernels import Kernels
from daybreak.planning.course import Pace
from daybreak.planning.machine import Machine, Size, does_not_fit
from daybreak.planning.memory import largest_micro_batch, memory_of, remedies
from daybreak.recipe import Recipe
from daybreak.training.flops import flops_per_token

USUAL_MFU = 0.35  # of plain GPT-2s on one GPU, compiled, in bf16: 0.3 to 0.45
_START = 60.0  # with compilation
_FORWARD = 1 / 3  # of a training step
_LOSS_ROWS = 8192
_SECONDS_OF_A_SAMPLE = 5.0
_PRECISION: PrecisionName = "bf16"


def named_machine(recipe: Recipe, device: str, count: int, mfu: float) -> Machine:
    """For `count` devices of a name, of whose dense peak a step reaches the share `mfu`.

    Raises:
        UserError: the device is not in the table, or the batch does not divide among them.
    """
    sheet = data_sheet(device) or data_sheet(f"RTX {device}")
    if sheet is None:
        raise UserError(f"device {device!r} is not in the table; {_meant(device)}it knows {', '.join(known_devices())}")
    rows = recipe.batch.smallest // recipe.row_length
    if rows % count:
        fewer = largest_divisor(rows, count)
        raise UserError(f"a step's {rows} rows do not divide among {count} devices; among {fewer} they do")
    rows //= count
    shards = count if recipe.parallel.kind == "fsdp" else 1
    kernels, capacity = Kernels(_LOSS_ROWS), sheet.memory_bytes
    fitting = largest_micro_batch(recipe, rows, kernels, _PRECISION, capacity, shards=shards)
    asked = recipe.execution.micro_batch
    micro_batch = (fitting or 1) if asked == "auto" else asked
    memory = memory_of(recipe, micro_batch, kernels, _PRECISION, shards=shards)
    warnings = []
    if fitting is None:
        would = tuple(remedies(recipe, rows, kernels, _PRECISION, capacity, count))
        warnings.append(does_not_fit("even one row", memory.total, capacity, would))
    elif memory.total > capacity:
        would = (f"execution.micro_batch={fitting}",)
        warnings.append(does_not_fit(f"execution.micro_batch = {micro_batch}", memory.total, capacity, would))
    rate = mfu * sheet.peak_flops * count
    flops = flops_per_token(recipe.model, recipe.row_length)
    saved = checkpoint_bytes(recipe)
    return Machine(
        name=sheet.name if count == 1 else f"{count} x {sheet.name}",
        count=count,
        pace=Pace(
            start=_START,
            step=flops * recipe.batch.tokens / rate,
            evaluation=_FORWARD * flops * recipe.evaluation.tokens / rate,
            sample=_SECONDS_OF_A_SAMPLE,
            save=saved / SAVED_BYTES_PER_SECOND,
        ),
        how=f"estimated: {mfu:.1%} of the data sheet's dense peak",
        memory=memory,
        total=Size(memory.total, f"estimated, with a micro-batch of {micro_batch}"),
        checkpoint=Size(saved, "weights and the optimizer's state"),
        warnings=tuple(warnings),
    )


def _meant(device: str) -> str:
    """What a person may have meant by a name that is not in the table."""
    if several := re.fullmatch(r"(\d+)\s*[xX*]\s*(\D.*)", device.strip()):
        return f"of several, write --device '{several[2]}' --gpus {several[1]}; "
    names = {name.lower().replace(" ", ""): name for name in known_devices()}
    nearest = difflib.get_close_matches(device.lower().replace(" ", ""), names, n=1)
    return f"did you mean {names[nearest[0]]!r}? " if nearest else ""
