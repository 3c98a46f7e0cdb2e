"""The recipes that ship, as a table."""

import re

from daybreak.model.gpt import count_parameters
from daybreak.recipe import Recipe, recipe_names


def recipe_table() -> str:
    """One line a recipe: its name, which leads to its file, what it is, its size and budget."""
    head = "| recipe | what it is | parameters | layers × dim | context | budget |"
    return f"{head}\n| --- | --- | ---: | ---: | ---: | --- |\n" + "\n".join(
        _line(Recipe.load(name)) for name in recipe_names()
    )


def _line(recipe: Recipe) -> str:
    model, name = recipe.model, recipe.name
    cells = (
        f"[`{name}`](../src/daybreak/recipes/{name}.toml)",
        recipe.description.replace("*", r"\*"),
        _short(count_parameters(model)),
        f"{model.layers}&nbsp;×&nbsp;{model.dim}",
        f"{model.context:,}",
        re.sub(r"\d{4,}", lambda number: f"{int(number[0]):,}", str(recipe.budget)),
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _short(number: int) -> str:
    scale, suffix = (1e9, "B") if number >= 1e9 else (1e6, "M") if number >= 1e6 else (1e3, "k")
    return f"{number / scale:.3g}&nbsp;{suffix}"
