"""What of a recipe may leave this machine: names in place of paths, which are nobody's business."""

from pathlib import Path
from typing import Any

from daybreak.origin import without_path
from daybreak.recipe import Recipe


def published(recipe: Recipe) -> Recipe:
    """The same recipe for cards, trackers and reports: names of its corpora, its source and its benchmarks alone."""
    tasks = recipe.tasks
    named = [pair.partition("=") for pair in tasks.local]
    update: dict[str, Any] = {
        "tasks": tasks.model_copy(
            update={
                "folder": None if tasks.folder is None else Path(tasks.folder).name,
                "local": tuple(f"{name}={Path(file).name}" for name, _, file in named),
            }
        ),
    }
    if recipe.data.places:
        update["data"] = recipe.data.lying_at([Path(place).name for place in recipe.data.places])
    if recipe.init is not None and recipe.init.source is not None:
        update["init"] = recipe.init.model_copy(update={"source": without_path(recipe.init.source)})
    return recipe.model_copy(update=update)
