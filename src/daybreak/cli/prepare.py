"""daybreak prepare."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daybreak.cli.command import command
from daybreak.cli.completing import sources, tokenizers
from daybreak.progress import say

if TYPE_CHECKING:
    from daybreak.data.tokenizer import Tokenizer

CHARACTERS = 66  # ids that `shakespeare-char-cpu` has room for; reading the recipe would import torch


class Duplicates(StrEnum):
    none = "none"
    exact = "exact"
    near = "near"


class Engine(StrEnum):
    here = "here"
    ray = "ray"


def prepare(
    source: Annotated[
        list[str],
        typer.Argument(
            autocompletion=sources, help="Files, folders, globs, URLs, hub:OWNER/NAME, -; or the name of a corpus."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    tokenizer: Annotated[
        str, typer.Option(autocompletion=tokenizers, help="bytes, chars, gpt2, bpe:SIZE, or a path.")
    ] = "gpt2",
    special: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A special token to add, as '<|user|>', which text may spell; repeatable."),
    ] = None,
    val: Annotated[float, typer.Option(help="Share kept for validation.")] = 0.1,
    text_key: Annotated[str, typer.Option(help="The key or column that holds the text of a record.")] = "text",
    component: Annotated[
        list[str] | None, typer.Option(help="Read this component of The Pile only (meta.pile_set_name); repeatable.")
    ] = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="Mend broken text (ftfy), and drop documents that are no good prose.")
    ] = False,
    deduplicate: Annotated[
        Duplicates, typer.Option(metavar="WHICH", help="Drop copies of earlier documents: none, exact or near.")
    ] = Duplicates.none,
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="An evaluation set: what shares 13 words in a row with it is dropped."),
    ] = None,
    language: Annotated[
        str | None, typer.Option(metavar="CODE", help="Drop documents in others than this, as en.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DATE", help="Drop documents from before, as 2018-06-01.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="DATE", help="Drop documents from after.")] = None,
    tokens_per_character: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Drop documents of more, as 0.3: their words are rare.")
    ] = None,
    mask_personal: Annotated[bool, typer.Option("--mask-personal", help="Replace e-mail and IP addresses.")] = False,
    rejects: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep what is dropped, with the reason.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Processes; unless given as many as cores, here or in the cluster."),
    ] = None,
    engine: Annotated[
        Engine, typer.Option(metavar="ENGINE", help="Where they run: here, or on a Ray cluster.")
    ] = Engine.here,
) -> None:
    """Make a corpus of text: cleaned if asked, tokenised, in shards.

    Reads text, JSONL, CSV, TSV, HTML and WARC, plain or .gz, .xz, .bz2, .zst, alone or in .tar and .zip; Parquet;
    hub:OWNER/NAME:CONFIG@REVISION, a data set of the Hugging Face hub, with or without the last two, or hub:FOLDER;
    https://…#sha256=HEX&size=BYTES; - for standard input: JSONL if its first line is a JSON object, else text.

    Named corpora: stdlib, zero-one, shakespeare, enwik8, text8, wikitext, openwebtext, fineweb-edu.

    Stopped or killed, the same command goes on where it was.

    Example: daybreak prepare stdlib --tokenizer bpe:4096 --out data/stdlib
    """
    from daybreak.data import prepare as preparation
    from daybreak.data.clean import Cleaning
    from daybreak.data.documents import Fields
    from daybreak.data.inspection import describe
    from daybreak.executor import Workers, available_cores

    corpus = preparation.prepare(
        source,
        out,
        tokenizer=tokenizer,
        specials=special or (),
        validation=val,
        cleaning=Cleaning(
            mend=clean,
            filter=clean,
            language=language,
            mask_personal=mask_personal,
            since=_date(since),
            until=_date(until),
            tokens_per_character=tokens_per_character,
        ),
        duplicates=deduplicate.value,
        against=against or (),
        rejects=rejects,
        fields=Fields(text_key, tuple(component or ())),
        workers=Workers(workers or (available_cores() if engine is Engine.here else 0), engine.value),
    )
    print(describe(corpus))
    say(f"next: {command()} train {_fitting_recipe(corpus.tokenizer)} --data {out}")


def _date(text: str | None) -> str | None:
    """Raises UserError for what is no date."""
    from datetime import date

    from daybreak.errors import UserError

    try:
        return None if text is None else date.fromisoformat(text).isoformat()
    except ValueError:
        raise UserError(f"{text!r} is no date; write it as 2018-06-01") from None


def _fitting_recipe(tokenizer: "Tokenizer") -> str:
    """A small recipe for a tokenizer, with the settings that make it fit."""
    known = {"bpe:4096": "gpt2-tiny", "bpe:259": "zero-one-tiny", "chars": "shakespeare-char-cpu"}
    recipe, vocab_size = known.get(tokenizer.name), tokenizer.padded_vocab_size
    if recipe is None:
        return f"gpt2-tiny data.tokenizer={tokenizer.base_name} model.vocab_size={vocab_size}"
    too_many = tokenizer.name == "chars" and tokenizer.vocab_size > CHARACTERS
    return f"{recipe} model.vocab_size={vocab_size}" if too_many else recipe
