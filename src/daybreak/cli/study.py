"""daybreak study."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from daybreak.cli.completing import corpora


def study(
    file: Annotated[Path, typer.Argument(help="The study's TOML file.")],
    data: Annotated[
        Path | None, typer.Option(autocompletion=corpora, help="The corpus, unless the recipes name theirs.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The study's folder; runs/NAME unless given.")] = None,
    sitting: Annotated[
        str | None,
        typer.Option("--for", metavar="TIME", help="End this sitting then, as 40m; the same command goes on."),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Trials at once; on Ray 0 is as many as fit.")] = 1,
    engine: Annotated[
        Literal["here", "ray"], typer.Option(help="Where trials run: here, or on a Ray cluster.")
    ] = "here",
    cores: Annotated[int, typer.Option(min=1, help="Of each trial on Ray.")] = 1,
    gpus: Annotated[float, typer.Option(min=0.0, help="Of each trial on Ray; a share, as 0.5, is possible.")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Find out which change helps.

    Trains each at equal budget over several seeds, and compares. Stopped, the same command goes on.

    Example: daybreak study cramming.toml --data data/wikipedia --for 40m
    """
    import shlex

    from daybreak.cli.command import command
    from daybreak.cli.ending import EXIT_STOPPED
    from daybreak.cli.json_output import print_json
    from daybreak.errors import UserError
    from daybreak.executor import Workers
    from daybreak.files import write_bytes, write_json
    from daybreak.finite import finite
    from daybreak.progress import say
    from daybreak.report.standalone import differences_svg
    from daybreak.study.conduct import conduct
    from daybreak.study.document import document
    from daybreak.study.results import STUDY, read_study
    from daybreak.study.table import shown
    from daybreak.training.signals import stop_seconds

    if engine == "here" and (not workers or gpus or cores > 1):
        raise UserError("--cores, --gpus and --workers 0 are of a Ray cluster: add --engine ray")
    folder = out or Path("runs") / file.stem
    seconds = stop_seconds(sitting)
    try:
        found = conduct(file, folder, data=data, workers=Workers(workers, engine, cores, gpus), seconds=seconds)
    except KeyboardInterrupt:  # between two trials, or while speeds are measured: what is done is on disk
        if not (folder / STUDY).is_file():
            raise
        found = read_study(folder)
    table = shown(found)
    write_bytes(folder / "results.md", table.encode())
    write_json(folder / "results.json", finite(document(found)))
    for reference, picture in differences_svg(found).items():
        write_bytes(folder / f"differences-to-{reference}.svg", picture)
    if as_json:
        print_json(document(found))
    else:
        print(table, end="")
    if found.missing:
        say("the same command goes on, and tries again what failed")
        raise typer.Exit(EXIT_STOPPED)
    say(f"next: {command()} report {shlex.quote(str(folder))}")
