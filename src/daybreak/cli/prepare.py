"""daybreak prepare."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daybreak.cli.command import command
from daybreak.progress import say

if TYPE_CHECKING:
    from daybreak.data.tokenizer import Tokenizer


def prepare(
    source: Annotated[
        list[str], typer.Argument(help="Files, folders, globs, URLs, hub:OWNER/NAME, -; or the name of a corpus.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    tokenizer: Annotated[str, typer.Option(help="bytes, chars, gpt2, bpe:SIZE, or a path.")] = "gpt2",
    val: Annotated[float, typer.Option(help="Share kept for validation.")] = 0.1,
    text_key: Annotated[str, typer.Option(help="The key or column that holds the text of a record.")] = "text",
    component: Annotated[
        list[str] | None, typer.Option(help="Read this component of The Pile only (meta.pile_set_name); repeatable.")
    ] = None,
) -> None:
    """Make a corpus of text: documents, tokens, shards.

    Reads text, JSONL, CSV, TSV, HTML and WARC, plain or .gz, .xz, .bz2, .zst, alone or in .tar and .zip; Parquet;
    hub:OWNER/NAME:CONFIG@REVISION, a data set of the Hugging Face hub, with or without the last two, or hub:FOLDER;
    https://…#sha256=HEX&size=BYTES; - for standard input: JSONL if its first line is a JSON object, else text.

    Named corpora: stdlib, zero-one, shakespeare, enwik8, text8, wikitext, openwebtext, fineweb-edu.

    Example: daybreak prepare stdlib --tokenizer bpe:4096 --out data/stdlib
    """
    from daybreak.data import prepare as preparation
    from daybreak.data.documents import Reading

    reading = Reading(text_key, tuple(component or ()))
    corpus = preparation.prepare(source, out, tokenizer=tokenizer, validation=val, reading=reading)
    print(preparation.describe(corpus))
    say(f"next: {command()} train {_fitting_recipe(corpus.tokenizer)} --data {out}")


def _fitting_recipe(tokenizer: "Tokenizer") -> str:
    """A small recipe for a tokenizer, with the settings that make it fit."""
    known = {"bpe:4096": "gpt2-tiny", "bpe:259": "zero-one-tiny", "chars": "shakespeare-char-cpu"}
    recipe, vocab_size = known.get(tokenizer.name), tokenizer.padded_vocab_size
    if recipe is None:
        return f"gpt2-tiny data.tokenizer={tokenizer.name} model.vocab_size={vocab_size}"
    return f"{recipe} model.vocab_size={vocab_size}" if tokenizer.name == "chars" else recipe
