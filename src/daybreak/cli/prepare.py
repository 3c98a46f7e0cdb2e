"""daybreak prepare."""

from pathlib import Path
from typing import Annotated

import typer

from daybreak.cli.command import command
from daybreak.progress import say


def prepare(
    source: Annotated[list[str], typer.Argument(help="stdlib, zero-one, shakespeare; or files, folders, globs.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    tokenizer: Annotated[str, typer.Option(help="bytes, chars, gpt2, bpe:SIZE, or a path.")] = "gpt2",
    val: Annotated[float, typer.Option(help="Share kept for validation.")] = 0.1,
) -> None:
    """Make a corpus of text: documents, tokens, shards.

    Reads text and JSONL ({"text": ...}), plain or .gz, .xz, .bz2, .zst.

    Example: daybreak prepare stdlib --tokenizer bpe:4096 --out data/stdlib
    """
    from daybreak.data import prepare as preparation

    corpus = preparation.prepare(source, out, tokenizer=tokenizer, validation=val)
    print(preparation.describe(corpus))
    name, padded = corpus.tokenizer.name, corpus.tokenizer.padded_vocab_size
    fitting = "" if name == "bpe:4096" else f" data.tokenizer={name} model.vocab_size={padded}"
    say(f"next: {command()} train gpt2-tiny --data {out}{fitting}")
