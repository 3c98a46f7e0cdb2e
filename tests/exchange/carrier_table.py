"""The table of docs/exchange.md: which class of transformers carries which recipe.

python tests/exchange/carrier_table.py --write
"""

import sys
from pathlib import Path

from daybreak.exchange.carriers import carrier_of
from daybreak.exchange.own_class import OWN
from daybreak.recipe import Recipe, recipe_names

PAGE = Path(__file__).parents[2] / "docs/exchange.md"
BEGIN, END = "<!-- carriers: made by tests/exchange/carrier_table.py -->", "<!-- end of carriers -->"
# Of the classes that come nearest, the one whose reason tells most.
_NEAREST = {"learned": "GPT2LMHeadModel", "sinusoidal": "GPT2LMHeadModel", "alibi": "BloomForCausalLM"}


def table() -> str:
    """A row for each recipe that ships."""
    lines = ["| recipe | class | why no other |", "| --- | --- | --- |"]
    for name in recipe_names():
        model = Recipe.load(name).model
        carrier, reasons = carrier_of(model)
        reason = ""
        if carrier is OWN:
            nearest = _nearest(model.position.kind, model.norm.kind)
            reason = f"`{nearest}` has no `{reasons[nearest]}`"
        lines.append(f"| `{name}` | `{carrier.architecture}` | {reason} |")
    return "\n".join(lines)


def _nearest(position: str, norm: str) -> str:
    return _NEAREST.get(position, "ArceeForCausalLM" if norm == "rmsnorm" else "GPTNeoXForCausalLM")


def page(text: str) -> str:
    """The page with this table in it."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    made = page(PAGE.read_text())
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(made)
    else:
        print(table())
