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
    file: Annotated[
        list[Path], typer.Argument(help="Files of tokens, in their order; or hf:NAME or a model's folder, and RUN.")
    ],
    out: Annotated[Path | None, typer.Option(help="The folder to make.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="The one that made the tokens: gpt2, bytes, or a path. [default: gpt2]")
    ] = None,
    validation: Annotated[list[Path] | None, typer.Option(help="A file for validation; again for each.")] = None,
    val: Annotated[
        float | None, typer.Option(help="Share kept for validation, at the tail, where no file is. [default: 0.01]")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--format", help="nanogpt, llm.c, npy or datatrove, where the file does not tell.")
    ] = None,
) -> None:
    """Make a corpus of others' token files, or a run of their model.

    Token files stay as they are: nothing is copied, only linked and hashed. Reads nanoGPT's .bin, llm.c's and
    modded-nanogpt's .bin, build-nanogpt's .npy, datatrove's .ds.

    Of a model of Hugging Face's transformers, safetensors alone are read, and nobody's code is run; transformers must
    compute the same logits.

    Example: daybreak import fineweb_train_*.bin --out data/fineweb \\
        --validation fineweb_val_000000.bin

    Example: daybreak import hf:openai-community/gpt2 runs/gpt2
    """
    if _is_model(file[0]):
        if tokenizer is not None or validation or val is not None or kind is not None:
            raise UserError("--tokenizer, --validation, --val and --format are of token files, not of a model")
        _import_model(file, out)
        return
    if out is None:
        raise UserError(
            "say what to make of the token files: --out FOLDER; or, for a model of the hub, which one and the run: "
            "hf:NAME RUN"
        )
    from daybreak.data import importing
    from daybreak.data.inspection import describe

    held_out = validation or []
    corpus = importing.import_files(
        file,
        out,
        tokenizer=tokenizer or "gpt2",
        validation=held_out,
        share=val,
        kind=None if kind is None else _kind(kind),
    )
    print(describe(corpus))
    say(f"next: {command()} inspect {out}")


def _is_model(source: Path) -> bool:
    return str(source).startswith("hf:") or (source / "config.json").is_file()


def _import_model(words: list[Path], out: Path | None) -> None:
    from daybreak.importing import import_model

    run = words[1] if len(words) == 2 and out is None else out
    if run is None or len(words) > 2 or (len(words) == 2 and out is not None):
        raise UserError(f"write: {command()} import {words[0]} RUN, where RUN is the folder to make")
    made = import_model(str(words[0]), run)
    print(f"{run}: {made.recipe.description}")
    say(f'next: {command()} sample {run} "Once upon a time"')


def _kind(name: str) -> "Kind":
    from daybreak.data.token_files import KINDS

    for kind in KINDS:
        if kind == name:
            return kind
    raise UserError(f"--format {name} is not known; there are {', '.join(KINDS)}")
