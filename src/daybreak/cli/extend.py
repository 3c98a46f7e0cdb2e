"""daybreak extend."""

from pathlib import Path
from typing import Annotated

import typer

from daybreak.cli.completing import corpora, runs
from daybreak.cli.ending import report


def extend(
    run: Annotated[Path, typer.Argument(autocompletion=runs, help="The run's folder.")],
    overrides: Annotated[list[str], typer.Argument(metavar="budget=…", help="The larger budget, as budget=48h.")],
    data: Annotated[
        Path | None,
        typer.Option(
            autocompletion=corpora,
            help="The corpus, or the folder of a mixture's; where the run had it unless given.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The new run's folder; RUN-BUDGET unless given.")] = None,
    stop_after: Annotated[
        str | None, typer.Option(metavar="TIME", help="Save and stop then, as 230m; the same command goes on.")
    ] = None,
) -> None:
    """Train a run on with a larger budget, in a new folder.

    It goes on from where the learning rate began to fall. Only what the larger budget adds is trained; the result
    is what that budget would have come to from the start.

    Example: daybreak extend runs/daybreak-small budget=20m
    """
    from daybreak import IMPORTED_AT
    from daybreak.extension import extend as extend_run

    report(extend_run(run, *overrides, data=data, out=out, started=IMPORTED_AT, stop_after=stop_after))
