"""Where things lie, as a page that is shared may say it: names of folders and files, not a machine's paths."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daybreak.recipe import Recipe

_DIGITS = 12  # of a SHA-256, that tell texts apart
_FOLDERS = re.compile(r"""(?<![^\s"'=(\[])/(?:[^\s"'/,;)\]]+/)+""")


def corpora(recipe: Recipe, identity: Mapping[str, Any]) -> list[str]:
    """The corpora of a recipe as `wiki (f6c2ca665754)`: the folder's name, and the first digits of its identity.

    Args:
        identity: of a run, which may know nothing of them.
    """
    names = [Path(place).name for place in recipe.data.places]
    sources = identity.get("mixture") or [{"identity": identity.get("corpus")}]
    known = [source.get("identity") for source in sources]
    if len(known) != len(names):
        return names
    return [f"{name} ({found[:_DIGITS]})" if found else name for name, found in zip(names, known, strict=True)]


def with_names(recipe: Recipe, identity: Mapping[str, Any] | None = None) -> Recipe:
    """The same recipe with names, and with identities where they are known, in place of paths."""
    data, tasks = recipe.data, recipe.tasks
    if data.places:
        data = data.lying_at(corpora(recipe, identity or {}))
    folder = None if tasks.folder is None else Path(tasks.folder).name
    local = tuple(f"{name}={Path(file).name}" for name, _, file in (pair.partition("=") for pair in tasks.local))
    tasks = tasks.model_copy(update={"folder": folder, "local": local})
    init = recipe.init and recipe.init.named
    return recipe.model_copy(update={"data": data, "tasks": tasks, "init": init})


def without_folders(text: str) -> str:
    """A line of words with `wiki` in place of `/home/me/wiki`."""
    return _FOLDERS.sub("", text)
