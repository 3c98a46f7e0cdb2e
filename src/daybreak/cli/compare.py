"""daybreak compare."""

from pathlib import Path
from typing import Annotated

import typer

from daybreak.cli import completing


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            autocompletion=completing.runs, help="Folders of finished runs; the first one's recipe is the base."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Compare finished runs, paired by seed.

    They need equal budgets, text and tokenizers. A study makes such runs by itself.

    Example: daybreak compare runs/a-1 runs/a-2 runs/b-1 runs/b-2
    """
    from daybreak.cli.json_output import print_json
    from daybreak.study.document import document_of_runs
    from daybreak.study.runs import compare_runs
    from daybreak.study.table import shown_runs

    compared = compare_runs(runs)
    if as_json:
        print_json(document_of_runs(compared))
    else:
        print(shown_runs(compared), end="")
