"""daybreak import."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daybreak.cli.command import command
from daybreak.errors import UserError
from daybreak.progress import say

if TYPE_CHECKING:
    from daybreak.data.token_files import Kind


def import_files(
    file: Annotated[list[Path], typer.Argument(help="Files of tokens, in their order.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    tokenizer: Annotated[str, typer.Option(help="The one that made the tokens: gpt2, bytes, or a path.")] = "gpt2",
    validation: Annotated[list[Path] | None, typer.Option(help="A file for validation; again for each.")] = None,
    val: Annotated[
        float | None, typer.Option(help="Share kept for validation, at the tail, where no file is. [default: 0.01]")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--format", help="nanogpt, llm.c, npy or datatrove, where the file does not tell.")
    ] = None,
) -> None:
    """Make a corpus of other tools' token files, as they are.

    Nothing is copied, only linked and hashed. Reads nanoGPT's .bin, llm.c's and modded-nanogpt's .bin, build-nanogpt's
    .npy, datatrove's .ds.

    Example: daybreak import fineweb_train_*.bin --out data/fineweb \\
        --validation fineweb_val_000000.bin
    """
    from daybreak.data import importing
    from daybreak.data.inspection import describe

    held_out = validation or []
    corpus = importing.import_files(
        file, out, tokenizer=tokenizer, validation=held_out, share=val, kind=None if kind is None else _kind(kind)
    )
    print(describe(corpus))
    say(f"next: {command()} inspect {out}")


def _kind(name: str) -> "Kind":
    from daybreak.data.token_files import KINDS

    for kind in KINDS:
        if kind == name:
            return kind
    raise UserError(f"--format {name} is not known; there are {', '.join(KINDS)}")
