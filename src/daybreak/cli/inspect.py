"""daybreak inspect."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daybreak.cli.completing import corpora
from daybreak.cli.json_output import print_json
from daybreak.errors import UserError

if TYPE_CHECKING:
    from daybreak.data.inspection import Inspection
    from daybreak.data.shards import SplitName


def inspect(
    corpus: Annotated[Path, typer.Argument(autocompletion=corpora, help="The corpus's folder.")],
    window: Annotated[int | None, typer.Option(help="Print this window instead, counted from 0.")] = None,
    size: Annotated[int, typer.Option(min=1, help="Tokens of a window.")] = 1024,
    document: Annotated[int | None, typer.Option(help="Print this document instead, counted from 0.")] = None,
    samples: Annotated[int, typer.Option(min=0, help="Pieces of text to show.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Chooses those pieces.")] = 0,
    split: Annotated[str, typer.Option(help="train or validation.")] = "train",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show what a corpus holds, and what looks wrong.

    Its sources, lengths, commonest tokens and samples; or one window or document of it.

    Example: daybreak inspect data/mine --window 1000
    """
    from daybreak.data import inspection
    from daybreak.data.inspection_page import printable, shown
    from daybreak.data.shards import Corpus

    if window is not None and document is not None:
        raise UserError("--window and --document exclude each other; ask for one of them")
    name = _split(split)
    opened = Corpus.open_unverified(corpus)
    if window is not None or document is not None:
        if window is not None:
            found = inspection.window(opened, window, size=size, split=name)
        else:
            found = inspection.document(opened, document or 0, split=name)
        if as_json:
            print_json(asdict(found))
        else:
            print(printable(found.text))
        return
    page = inspection.inspect_corpus(opened, split=name, excerpts=samples, seed=seed)
    if as_json:
        print_json(_as_json(page))
    else:
        print(shown(page), end="")


def _split(name: str) -> "SplitName":
    if name == "train":
        return "train"
    if name == "validation":
        return "validation"
    raise UserError(f"--split {name}: a corpus has the splits train and validation")


def _as_json(page: "Inspection") -> dict[str, object]:
    """The bytes of a token as text, where they are not UTF-8 with U+FFFD."""
    value = asdict(page)
    for each in value["commonest"]:
        each["content"] = each["content"].decode("utf-8", errors="replace")
    return value
