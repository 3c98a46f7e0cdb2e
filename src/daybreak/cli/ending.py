"""What a person is told when a sitting of a run has ended."""

import shlex
import sys
from typing import TYPE_CHECKING

import typer

from daybreak.cli.command import command
from daybreak.progress import say, speaks

if TYPE_CHECKING:
    from daybreak.run import Run

EXIT_STOPPED = 3


def report(run: "Run") -> None:
    """Say what a sitting came to, and what to do next; exits with code 3 if it was stopped."""
    if not run.finished:
        say(f"stopped and saved at step {run.spent.steps:,}; go on with: {command()} {shlex.join(sys.argv[1:])}")
        raise typer.Exit(EXIT_STOPPED)
    if not speaks():
        return
    loss = run.final_loss
    print(f"{run.path}: {run.spent.steps:,} steps, {run.spent.tokens:,} tokens, validation loss {loss:.4f}")
    say(f"next: {command()} evaluate {run.path}; {command()} sample {run.path}")
