"""A model of Hugging Face's transformers as a run: sampled, evaluated on text, exported, or trained on from."""

import re
from pathlib import Path
from typing import Any

from daybreak.checkpoint import Tensors
from daybreak.compose import choose_execution
from daybreak.errors import UserError
from daybreak.evaluate.hugging_face import PREFIX
from daybreak.exchange.read import ForeignModel, read_model
from daybreak.files import require_text, whole_folder
from daybreak.identity import write_execution, write_imported_identity
from daybreak.origin import without_path
from daybreak.recipe import Recipe
from daybreak.run import Run, load
from daybreak.saving import CheckpointConfig, Checkpoints
from daybreak.training.guard import GuardRecord
from daybreak.training.spent import Spent
from daybreak.training.state import State

_LONGEST_ROW = 2048  # tokens; of longer contexts rows take gigabytes


def import_model(source: str, out: Path | str) -> Run:
    """Make a run's folder of a model of transformers, which has computed the same logits here as there.

    Args:
        source: `hf:NAME` of the hub, as `hf:openai-community/gpt2`, or a folder, with or without `hf:`.
        out: the run's folder; it appears only when it is whole.

    Raises:
        UserError: there is no such model, ours cannot be it exactly, or `out` exists.
    """
    out = Path(out)
    require_text(out)
    if out.exists():
        raise UserError(f"{out} exists already; choose another folder, or delete it to import again")
    source = f"{PREFIX}{source.removeprefix(PREFIX)}"
    read = read_model(source)
    recipe = _recipe(read)
    execution = choose_execution(recipe)
    guard = GuardRecord(scaling=execution.precision == "fp16")
    state = State(Spent(), guard, execution.micro_batch, owes_validation=False)
    with whole_folder(out) as aside:
        write_imported_identity(aside, recipe, read.tokenizer, without_path(source), read.architecture)
        write_execution(aside, execution)
        with Checkpoints(aside / "checkpoints", CheckpointConfig()) as checkpoints:
            checkpoints.save(0, Tensors(read.weights, {}), state.to_json(), pinned=True)
    return load(out)


def _recipe(read: ForeignModel) -> Recipe:
    """The least that a recipe says; of its data and its training nothing is known."""
    row = min(read.config.context, _LONGEST_ROW)
    settings: dict[str, Any] = {
        "name": re.sub(r"[^A-Za-z0-9._-]+", "-", without_path(read.source).removeprefix(PREFIX)).strip("-"),
        "description": f"{read.architecture} of transformers, from {without_path(read.source)}",
        "budget": "1 steps",
        "data": {"window": row},
        "batch": {"tokens": row},
        "model": read.config.model_dump(mode="json"),
        "optimizer": {"kind": "adamw", "lr": 3e-5},
    }
    return Recipe.model_validate(settings)
