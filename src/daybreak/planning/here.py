"""A run on this machine, measured by beginning it."""

import tempfile
from pathlib import Path

import torch

from daybreak.compose import choose_execution
from daybreak.data.reading import Reading
from daybreak.errors import UserError
from daybreak.hardware import free_memory
from daybreak.planning.machine import Machine, Size, does_not_fit
from daybreak.planning.memory import memory_of, remedies
from daybreak.planning.rehearsal import rehearse
from daybreak.profile.shortened import random_corpus
from daybreak.recipe import Recipe


def this_machine(recipe: Recipe, reading: Reading | None) -> Machine:
    """Begin the run, and give it up after some steps.

    Args:
        reading: what it reads; random text unless given.

    Raises:
        UserError: it cannot begin here.
    """
    if recipe.init is not None and recipe.init.source is None:
        raise UserError(
            f"{recipe.name} begins from a trained model, whose size says what it takes here: give init=RUN, or plan "
            "for a model of its own shape elsewhere, as with --device 'RTX 3090'"
        )
    execution = choose_execution(recipe)
    free = free_memory(torch.device(execution.device))
    least = memory_of(recipe, 1, execution.kernels, execution.precision).total
    if least > free:
        rows = recipe.batch.smallest // recipe.row_length
        would = tuple(remedies(recipe, rows, execution.kernels, execution.precision, free, 1))
        raise UserError(does_not_fit("even one row", least, free, would))
    with tempfile.TemporaryDirectory(prefix="daybreak-plan-") as folder:
        if reading is None:
            text = random_corpus(recipe, Path(folder)).path
            data = recipe.with_data(text).data.model_copy(update={"tokenizer": None})
            recipe = recipe.model_copy(update={"data": data})
        found = rehearse(recipe)
    on_cpu = found.device == "cpu"
    return Machine(
        name=f"this machine ({found.device}, {found.precision})",
        count=1,
        pace=found.pace,
        how="measured here in a run of a few steps" + ("" if reading else ", on random text"),
        memory=memory_of(recipe, found.micro_batch, execution.kernels, execution.precision),
        total=Size(found.peak_bytes, "measured here, the whole process" if on_cpu else "measured here"),
        checkpoint=Size(found.checkpoint_bytes, "measured here"),
        windows_read=found.windows if on_cpu else None,
    )
