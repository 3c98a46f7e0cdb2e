"""daybreak train."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from daybreak.cli.command import command
from daybreak.progress import say

EXIT_STOPPED = 3


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or the path of its TOML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Any setting of the recipe, as budget=90s; daybreak recipes NAME lists them."
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The corpus; the recipe's own unless given.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/NAME unless given.")] = None,
) -> None:
    """Train a recipe within its budget. The same --out again goes on where the run stopped.

    Ctrl-C finishes the step, saves, and exits with code 3.

    Example: daybreak train gpt2-tiny --data data/stdlib budget=5m optimizer.lr=1e-3
    """
    from daybreak import IMPORTED_AT
    from daybreak.recipe import Recipe
    from daybreak.run import train as train_run

    run = train_run(Recipe.load(recipe, *(overrides or [])), data=data, out=out, started=IMPORTED_AT)
    if not run.finished:
        say(f"stopped and saved at step {run.spent.steps:,}; go on with: {command()} {shlex.join(sys.argv[1:])}")
        raise typer.Exit(EXIT_STOPPED)
    loss = run.final_loss
    print(f"{run.path}: {run.spent.steps:,} steps, {run.spent.tokens:,} tokens, validation loss {loss:.4f}")
    say(f"next: {command()} evaluate {run.path}; {command()} sample {run.path}")
