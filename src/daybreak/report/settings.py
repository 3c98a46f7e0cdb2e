"""Recipes and environments as differences: what is alike is not worth reading."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from daybreak.family import depth_of
from daybreak.recipe import Recipe, recipe_names
from daybreak.report.html import Content, element, table
from daybreak.report.observed import Observed
from daybreak.report.places import corpora, with_names
from daybreak.report.words import NOTHING

_LONGEST_SETTING = 120
_LONGEST_ON_A_LINE = 32


def differences(runs: Sequence[Observed]) -> Element | None:
    """Settings in which the runs differ; None if they are alike."""
    settings = [_given(with_names(run.recipe, run.identity)) for run in runs]
    keys = sorted({key for each in settings for key in each if key not in ("name", "description")})
    rows = [
        (key, *(_setting(each.get(key)) for each in settings))
        for key in keys
        if any(each.get(key) != settings[0].get(key) for each in settings)
    ]
    heads = ("setting", *(run.name for run in runs))
    return table(heads, rows, caption="Settings in which the runs differ", texts=range(1, len(heads))) if rows else None


def difference_to_parent(recipe: Recipe, name: str) -> tuple[str, Element | None]:
    """What the recipe was compared with, and the settings that differ from it; None if none does."""
    parent, is_named = _parent(recipe)
    mine, theirs = _given(with_names(recipe)), _given(parent)
    keys = sorted(
        key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key) and key != "description"
    )
    rows = [(key, _setting(theirs.get(key)), _setting(mine.get(key))) for key in keys]
    said = (
        f"Against {parent.name}, as it ships."
        if is_named
        else f"No recipe named {recipe.name or 'so'} ships; against {parent.name}, the one that differs least."
    )
    heads = ("setting", parent.name, name)
    caption = f"Settings in which {name} differs from {parent.name}"
    return said, table(heads, rows, caption=caption, texts=(1, 2)) if rows else None


def environment(runs: Sequence[Observed]) -> Element:
    """How the runs were executed, and what identifies what they read."""
    found: list[dict[str, object]] = []
    for run in runs:
        execution = {} if run.execution is None else run.execution.model_dump(mode="json")
        found.append(
            {
                **execution,
                "recipe": run.recipe.name,
                "fingerprint of the recipe": run.identity.get("fingerprint"),
                "corpora and their identities": ", ".join(corpora(run.recipe, run.identity)) or None,
                "tokenizer": run.identity.get("tokenizer"),
            }
        )
    keys = list(dict.fromkeys(key for each in found for key in each))
    rows = [(key.replace("_", " "), *(_setting(each.get(key)) for each in found)) for key in keys]
    heads = ("what", *(run.name for run in runs))
    return table(heads, rows, caption="Environment", texts=range(1, len(heads)))


def _given(recipe: Recipe) -> dict[str, object]:
    """Its settings without the empty ones: a list of nothing is nothing."""
    return {key: value for key, value in recipe.settings.items() if value is not None and value != []}


def _parent(recipe: Recipe) -> tuple[Recipe, bool]:
    """The shipped recipe of that name, else the one that differs least; and whether it is the former."""
    if recipe.name in recipe_names() or depth_of(recipe.name) is not None:
        return Recipe.load(recipe.name), True
    shipped = [Recipe.load(name) for name in recipe_names()]
    return min(shipped, key=lambda each: len(recipe.differences(each))), False


def _setting(value: object) -> Content:
    if value is None:
        return NOTHING
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = text if len(text) <= _LONGEST_SETTING else f"{text[:_LONGEST_SETTING]}…"
    return element("span", text, class_="long") if len(text) > _LONGEST_ON_A_LINE else text
