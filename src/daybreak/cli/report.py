"""daybreak report."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN...", help="A run's folder; several are compared.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The page; report.html in the run, or here for several, unless given."),
    ] = None,
) -> None:
    """Write a run, or several over one another, as one HTML page of pictures and tables.

    Works while a run trains. The page needs no network and no other file.

    Example: daybreak report runs/mine runs/other --out compared.html
    """
    from daybreak.report.write import write_report

    print(write_report(paths, out))
