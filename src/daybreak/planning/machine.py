"""What a run takes on a machine: on this one by beginning it, on another by its data sheet."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

from daybreak.compose import choose_execution
from daybreak.data.shards import Corpus
from daybreak.errors import UserError
from daybreak.hardware import free_memory
from daybreak.model.gpt import count_parameters
from daybreak.planning.course import Pace
from daybreak.planning.elsewhere import estimate
from daybreak.planning.memory import Memory, memory_of, remedies
from daybreak.planning.rehearsal import rehearse
from daybreak.profile.shortened import random_corpus
from daybreak.progress import human_bytes
from daybreak.recipe import Recipe

_SAVED_BYTES_PER_PARAMETER = 12


@final
@dataclass(frozen=True)
class Machine:
    """What a run takes on some machine.

    Attributes:
        count: of devices.
        how: where the pace is from.
        total, checkpoint: bytes on each device, and of one checkpoint, with where that is from.
        warnings: of memory.
    """

    name: str
    count: int
    pace: Pace
    how: str
    memory: Memory
    total: tuple[int, str]
    checkpoint: tuple[int, str]
    warnings: tuple[str, ...]


def this_machine(recipe: Recipe, corpus: Corpus | None) -> Machine:
    """By beginning the run, and giving it up.

    Raises:
        UserError: it cannot begin here.
    """
    execution = choose_execution(recipe)
    free = free_memory(torch.device(execution.device))
    least = memory_of(recipe, 1, execution.kernels, execution.precision).total
    if least > free:
        rows = recipe.batch.smallest // recipe.row_length
        would = remedies(recipe, rows, execution.kernels, execution.precision, free, 1)
        raise UserError(f"memory: even one row takes {_of(least, free)}{_would_do(tuple(would))}")
    with tempfile.TemporaryDirectory(prefix="daybreak-plan-") as folder:
        begun, path = recipe, None if corpus is None else corpus.path
        if path is None:
            path = random_corpus(recipe, Path(folder)).path
            begun = recipe.model_copy(update={"data": recipe.data.model_copy(update={"tokenizer": None})})
        found = rehearse(begun, path)
    return Machine(
        name=f"this machine ({found.device}, {found.precision})",
        count=1,
        pace=found.pace,
        how="measured here in a run of a few steps" + ("" if corpus else ", on random text"),
        memory=memory_of(recipe, found.micro_batch, execution.kernels, execution.precision),
        total=(found.peak_bytes, "measured here, the whole process" if found.device == "cpu" else "measured here"),
        checkpoint=(found.checkpoint_bytes, "measured here"),
        warnings=(),
    )


def named_machine(recipe: Recipe, device: str, count: int, mfu: float) -> Machine:
    """By the data sheet of `count` devices of that name, of whose peak a step reaches the share `mfu`."""
    found = estimate(recipe, device, count, mfu)
    takes, warnings = _of(found.memory.total, found.capacity), []
    if found.fitting is None:
        warnings.append(f"memory: even one row takes {takes}{_would_do(found.remedies)}")
    elif found.micro_batch > found.fitting:
        asked = f"execution.micro_batch = {found.micro_batch}"
        warnings.append(f"memory: {asked} takes {takes}; what fits is execution.micro_batch={found.fitting}")
    return Machine(
        name=found.device if count == 1 else f"{count} x {found.device}",
        count=count,
        pace=found.pace,
        how=f"estimated: {mfu:.1%} of the data sheet's dense peak",
        memory=found.memory,
        total=(found.memory.total, f"estimated, with a micro-batch of {found.micro_batch}"),
        checkpoint=(_SAVED_BYTES_PER_PARAMETER * count_parameters(recipe.model), "12 bytes a parameter"),
        warnings=tuple(warnings),
    )


def _of(taken: int, there: float) -> str:
    return f"{human_bytes(taken)} of {human_bytes(int(there))}"


def _would_do(settings: tuple[str, ...]) -> str:
    return f"; would do: {', or '.join(settings)}" if settings else "; use a smaller model"
