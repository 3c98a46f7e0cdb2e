"""daybreak train."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daybreak.cli.completing import corpora, recipes_or_auto
from daybreak.cli.ending import report
from daybreak.progress import say

if TYPE_CHECKING:
    from daybreak.recipe import Recipe


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            autocompletion=recipes_or_auto,
            help="A recipe's name, its TOML file's path, or auto: what suits the budget.",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE", help="Any setting of the recipe, as budget=90s; daybreak recipes NAME lists them."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            autocompletion=corpora, help="The corpus, or the folder of a mixture's; the recipe's own unless given."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/NAME unless given.")] = None,
    stop_after: Annotated[
        str | None, typer.Option(metavar="TIME", help="Save and stop then, as 230m; the same command goes on.")
    ] = None,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Go on though the recipe differs from the run's; not its model.")
    ] = False,
) -> None:
    """Train a recipe within its budget.

    The same --out again goes on where the run stopped. Ctrl-C, SIGTERM and --stop-after save, and exit with code 3.
    With several GPUs or machines, start it with
    torchrun --nproc-per-node N -m daybreak train …

    auto measures this machine and takes the depth of the family daybreak-dN that the budget is best spent on.

    Example: daybreak train auto --data data/stdlib budget=5m
    """
    from daybreak import IMPORTED_AT
    from daybreak.recipe import Recipe
    from daybreak.run import train as train_run
    from daybreak.training.signals import stop_seconds

    stop_seconds(stop_after)  # a mistake in it is said before anything is measured
    if recipe == "auto":
        out = out or Path("runs") / "auto"
        asked = _chosen(tuple(overrides or ()), data, out)
    else:
        asked = Recipe.load(recipe, *(overrides or []))
    run = train_run(
        asked, data=data, out=out, started=IMPORTED_AT, stop_after=stop_after, accept_changes=accept_changes
    )
    report(run)


def _chosen(overrides: tuple[str, ...], data: Path | None, out: Path) -> "Recipe":
    """The recipe that suits the budget; of a run that was begun, its own."""
    from daybreak import IMPORTED_AT
    from daybreak.data.reading import open_corpus
    from daybreak.distributed import launched_ranks
    from daybreak.errors import UserError
    from daybreak.family import depth_of
    from daybreak.planning.dial import choose_depth, shown
    from daybreak.recipe import Recipe

    if (out / "recipe.toml").is_file():
        begun = Recipe.load(out / "recipe.toml", *overrides)
        if depth_of(begun.name) is None:
            raise UserError(f"{out} holds a run of {begun.name}, which auto did not choose; choose another --out")
        return begun
    if any(each.startswith("init") for each in overrides):
        raise UserError("auto chooses a model, and init brings one: name a recipe, as daybreak-small, to begin from it")
    if any(each.startswith("data.mixture") for each in overrides):
        raise UserError("auto takes one corpus: give --data CORPUS, or a mixture to a recipe by its name")
    if out.is_file():
        raise UserError(f"{out} is a file, where a folder should be; choose another --out")
    if launched_ranks() > 1:
        raise UserError(
            "auto measures one process alone; see what it chooses with `daybreak train auto … --stop-after 1m`, then "
            "give torchrun that recipe"
        )
    choice = choose_depth(open_corpus(data), *overrides, started=IMPORTED_AT)
    say(f"{shown(choice)}\n{choice.recipe.name} is expected to make the most of {choice.recipe.budget} on this machine")
    return choice.recipe
