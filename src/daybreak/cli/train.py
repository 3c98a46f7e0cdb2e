"""daybreak train."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from daybreak.cli.command import command
from daybreak.progress import say, speaks

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
    stop_after: Annotated[
        str | None, typer.Option(metavar="TIME", help="Save and stop then, as 230m; the same command goes on.")
    ] = None,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Go on though the recipe differs from the run's; not its model.")
    ] = False,
) -> None:
    """Train a recipe within its budget. The same --out again goes on where the run stopped.

    Ctrl-C, SIGTERM and --stop-after save, and exit with code 3. With several GPUs or machines, start it with
    torchrun --nproc-per-node N -m daybreak train …

    Example: daybreak train gpt2-tiny --data data/stdlib budget=5m optimizer.lr=1e-3
    """
    from daybreak import IMPORTED_AT
    from daybreak.recipe import Recipe
    from daybreak.run import train as train_run

    asked = Recipe.load(recipe, *(overrides or []))
    run = train_run(
        asked, data=data, out=out, started=IMPORTED_AT, stop_after=stop_after, accept_changes=accept_changes
    )
    if not run.finished:
        say(f"stopped and saved at step {run.spent.steps:,}; go on with: {command()} {shlex.join(sys.argv[1:])}")
        raise typer.Exit(EXIT_STOPPED)
    if not speaks():
        return
    loss = run.final_loss
    print(f"{run.path}: {run.spent.steps:,} steps, {run.spent.tokens:,} tokens, validation loss {loss:.4f}")
    say(f"next: {command()} evaluate {run.path}; {command()} sample {run.path}")
