"""Where things lie, as a page that is shared may say it: names of folders and files, not a machine's paths."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daybreak.published import published
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
    named = published(recipe)
    if not recipe.data.places:
        return named
    return named.model_copy(update={"data": recipe.data.lying_at(corpora(recipe, identity or {}))})


def without_folders(text: str) -> str:
    """A line of words with `wiki` in place of `/home/me/wiki`."""
    return _FOLDERS.sub("", text)
