"""daybreak verify."""

from pathlib import Path
from typing import Annotated

import typer

from daybreak.cli.completing import runs_or_corpora
from daybreak.cli.json_output import print_json
from daybreak.progress import say

EXIT_DAMAGED = 1


def verify(
    path: Annotated[Path, typer.Argument(autocompletion=runs_or_corpora, help="A corpus or a run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check every hash of a corpus or a run.

    Exit code 1 if anything is wrong.

    Example: daybreak verify runs/mine
    """
    from daybreak.verify import Checked
    from daybreak.verify import verify as check

    checked: list[Checked] = []
    total = 0
    for each in check(path):
        checked.append(each)
        size = each.path.stat().st_size if each.path.is_file() else 0
        total += size
        if not as_json:
            shown = each.path.relative_to(path)
            print(f"{'wrong' if each.problem else 'good':<6}{size / 1e6:>12,.2f} MB  {shown}")
            if each.problem:
                print(f"      {each.problem}")
    problems = [each for each in checked if each.problem]
    if as_json:
        files = [{"file": str(each.path.relative_to(path)), "problem": each.problem} for each in checked]
        print_json({"path": str(path), "bytes": total, "wrong": len(problems), "files": files})
    elif not problems:
        print(f"{path}: {len(checked)} files, {total / 1e6:,.1f} MB, all as they were written")
    if problems:
        say(f"{len(problems)} of {len(checked)} files are not as they were written")
        raise typer.Exit(EXIT_DAMAGED)
