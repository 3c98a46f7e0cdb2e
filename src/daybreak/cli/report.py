"""daybreak report."""

from pathlib import Path
from typing import Annotated

import typer

from daybreak.cli.completing import runs_or_studies


def report(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER",
            autocompletion=runs_or_studies,
            help="A run's or a study's folder; several runs are compared.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The page; report.html in the folder, or here for several, unless given."),
    ] = None,
) -> None:
    """Write a run, several, or a study as one page of pictures.

    Works while a run trains. The page needs no network and no other file.

    Example: daybreak report runs/mine runs/other --out compared.html
    """
    from daybreak.report.write import write_report

    print(write_report(paths, out))
