"""What `daybreak evaluate` says of text, and of contexts."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from daybreak.cli.json_output import print_json

if TYPE_CHECKING:
    from daybreak.evaluate.language_model import LanguageModel
    from daybreak.evaluate.sweep import TextLoss, Unmeasured
    from daybreak.evaluate.text import Amount, Text

_WIDTHS = (7, 7, 8, 11, 10, 10, 9)
_HEADINGS = ("context", "stride", "loss", "perplexity", "bits/byte", "bits/char", "tokens/s")


def evaluate_text(
    model: str,
    sources: Sequence[str],
    *,
    data: str | None,
    contexts: str | None,
    stride: int | None,
    text_key: str,
    as_json: bool,
) -> None:
    """Measure a model on text, or on a validation split where there are no sources; at one context or at many.

    Raises:
        UserError: anything the person can mend.
    """
    from daybreak.data.documents import Fields
    from daybreak.errors import UserError
    from daybreak.evaluate.hugging_face import PREFIX, open_hugging_face
    from daybreak.evaluate.sweep import measure, sweep
    from daybreak.evaluate.text import read_text
    from daybreak.run import load

    asked = None if contexts is None else parse_contexts(contexts)
    opened: LanguageModel
    if model.startswith(PREFIX):
        if not sources:
            raise UserError(f"{model} has no validation split of its own; give --text FILE")
        opened = open_hugging_face(model)
    else:
        run = load(model)
        opened = run.language_model
    texts = [read_text(opened, sources, Fields(text_key))] if sources else run.validation_texts(data)
    about = {"model": model, "text": list(sources) or ["validation"]}
    if asked is None:
        found = measure(opened, texts, stride=stride)
        if as_json:
            print_json({**about, **asdict(found.amount), **found.figures})
        else:
            print(describe(found))
        return
    rows = sweep(opened, texts, asked, stride)
    if as_json:
        print_json({**about, **asdict(_total(texts)), "contexts": [row.figures for row in rows]})
    else:
        _print_table(texts, rows)


def parse_contexts(text: str) -> list[int]:
    """`512,1024,2048`.

    Raises:
        UserError: it is no list of positive whole numbers, or one is there twice.
    """
    from daybreak.errors import UserError

    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and word.isascii() and len(word) < 10 and int(word) > 0 for word in words):
        raise UserError(f"--contexts {text} is no list of numbers of tokens; write it as 512,1024,2048")
    contexts = [int(word) for word in words]
    if len(set(contexts)) < len(contexts):
        raise UserError(f"--contexts {text} names one twice")
    return contexts


def describe(found: "TextLoss") -> str:
    """A figure a line."""
    return "\n".join(
        (
            f"loss                {found.loss:.4f} nats a token",
            f"perplexity          {_perplexity(found.perplexity)} a token",
            f"word perplexity     {_perplexity(found.word_perplexity)} a word between white space",
            f"bits per byte       {found.bits_per_byte:.4f}",
            f"bits per character  {found.bits_per_character:.4f}",
            f"measured on         {found.tokens:,} tokens at a context of {found.context:,}, stride {found.stride:,}",
            f"                    {_described(found.amount)}",
        )
    )


def _print_table(texts: "Sequence[Text]", rows: "Iterable[TextLoss | Unmeasured]") -> None:
    """Each row as soon as it is there."""
    from daybreak.evaluate.sweep import Unmeasured

    print(_described(_total(texts)))
    print(_line(_HEADINGS), flush=True)
    for row in rows:
        if isinstance(row, Unmeasured):
            print(f"{row.context:>{_WIDTHS[0]},}  not measured: {row.reason}", flush=True)
            continue
        cells = (
            f"{row.context:,}",
            f"{row.stride:,}",
            f"{row.loss:.4f}",
            _perplexity(row.perplexity),
            f"{row.bits_per_byte:.4f}",
            f"{row.bits_per_character:.4f}",
            f"{row.tokens_per_second:,.0f}",
        )
        print(_line(cells), flush=True)


def _line(cells: Sequence[str]) -> str:
    return "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=True))


def _perplexity(value: float) -> str:
    return f"{value:,.3f}" if value < 1e6 else f"{value:.3e}"


def _total(texts: "Sequence[Text]") -> "Amount":
    return sum((text.amount for text in texts[1:]), texts[0].amount)


def _described(amount: "Amount") -> str:
    many = "1 document" if amount.documents == 1 else f"{amount.documents:,} documents"
    return f"{many}, {amount.bytes:,} bytes, {amount.characters:,} characters, {amount.words:,} words"
