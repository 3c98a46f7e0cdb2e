"""daybreak plan."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daybreak.cli.completing import corpora, recipes
from daybreak.cli.json_output import print_json

if TYPE_CHECKING:
    from daybreak.planning.plan import Plan


def plan(
    recipe: Annotated[
        str, typer.Argument(autocompletion=recipes, help="A recipe's name, or the path of its TOML file.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Any setting of the recipe, as budget=24h.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            autocompletion=corpora,
            help="The corpus, or the folder of a mixture's; the recipe's own, or random text, unless given.",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="A GPU by its name, as 'RTX 3090'; this machine unless given.")
    ] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="How many of that device; 1 unless given.")] = None,
    mfu: Annotated[
        float | None, typer.Option(min=0.01, max=1.0, help="Share of its peak that a step reaches; 0.35 unless given.")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0.0, help="Dollars an hour, of all devices.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Say what a budget buys, before it is spent.

    Size, memory, speed, time, money, disk and the loss to expect.
    This machine is measured, in some ten seconds; other devices are estimated from their data sheets.

    Example: daybreak plan gpt2 --device "RTX 3090" --price 0.4
    """
    from dataclasses import asdict

    from daybreak.distributed import launched_ranks
    from daybreak.errors import UserError
    from daybreak.planning.elsewhere import USUAL_MFU
    from daybreak.planning.plan import plan as work_out
    from daybreak.recipe import Recipe

    if recipe == "auto":
        raise UserError("auto chooses a recipe: `daybreak train auto budget=…` says which, and runs it; plan that one")
    if launched_ranks() > 1:
        raise UserError("plan measures one process alone: start it without torchrun")
    asked = [*(overrides or []), *([] if price is None else [f"price={price}"])]
    if device is None and (gpus is not None or mfu is not None):
        raise UserError("--gpus and --mfu are of a device that is estimated: give --device, as --device 'RTX 3090'")
    loaded = Recipe.load(recipe, *asked)
    found = work_out(loaded, data=data, device=device, count=gpus or 1, mfu=USUAL_MFU if mfu is None else mfu)
    if as_json:
        print_json(asdict(found))
    else:
        _print(found)


def _print(found: "Plan") -> None:
    print(f"{found.recipe}, budget {found.budget}, on {found.device}\n")
    width = max(len(figure.shown) for figure in found.figures)
    for figure in found.figures:
        print(f"{figure.name:<24} {figure.shown:>{width}}   {figure.how}")
    for warning in found.warnings:
        print(f"\nwarning: {warning}")
