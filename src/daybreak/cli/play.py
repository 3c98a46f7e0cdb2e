"""daybreak play."""

from pathlib import Path
from typing import Annotated

import typer

from daybreak.cli import completing


def play(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", autocompletion=completing.runs, help="Folders of runs; of several, two are compared."
        ),
    ],
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Of the page; a free one unless given.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    most_characters: Annotated[int, typer.Option(min=1, help="The longest prompt.")] = 10_000,
    most_tokens: Annotated[int, typer.Option(min=1, help="The longest continuation.")] = 1_000,
    most_waiting: Annotated[int, typer.Option(min=0, help="How many may wait while a run is busy.")] = 8,
    host: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Try runs on a page in the browser, two side by side.

    The page has a prompt and every setting of sampling. It is served on 127.0.0.1, to this machine only, until Ctrl-C.

    Example: daybreak play runs/mine runs/other --open
    """
    from daybreak.errors import UserError
    from daybreak.playground.asked import Limits
    from daybreak.playground.play import play as serve

    if host not in (None, "127.0.0.1", "localhost"):
        raise UserError(
            f"--host {host}: the page is served to this machine only; "
            "to see it from another one, forward its port: ssh -L 7860:127.0.0.1:7860 THIS-MACHINE"
        )
    serve(runs, port=port, limits=Limits(most_characters, most_tokens, most_waiting), browser=open_)
