"""An inspection as a page: Markdown that reads well in a terminal."""

from collections.abc import Iterator, Sequence

from daybreak.data.degenerate import visible
from daybreak.data.document_starts import Lengths
from daybreak.data.inspection import Excerpt, Inspection
from daybreak.data.tokenizer_report import TokenizerReport
from daybreak.text_table import markdown_table

_BAR = 40  # signs of the longest bar


def shown(inspection: Inspection) -> str:
    """The whole page. It holds no path and no time: equal corpora have equal pages."""
    return "\n".join(_lines(inspection)) + "\n"


def printable(text: str) -> str:
    """Text whose control characters are spelled out, since they could command a terminal."""
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else sign.encode("unicode_escape").decode() for sign in text
    )


def _lines(inspection: Inspection) -> Iterator[str]:
    yield "# What is in this corpus"
    yield from ("", "## What went in", "")
    yield from _table(
        ("source", "documents", "MB of text"),
        [(each.name, _count(each.documents), _megabytes(each.bytes)) for each in inspection.sources],
    )
    yield from ("", "## What was dropped, and why", "")
    yield from _dropped(inspection)
    yield from ("", "## What came out", "")
    yield from _table(
        ("split", "tokens", "documents", "MB of text", "bytes a token"),
        [
            (name, _count(each.tokens), _count(each.documents), _megabytes(each.bytes), f"{each.bytes_per_token:.2f}")
            for name, each in inspection.counts.items()
        ],
    )
    whole = inspection.counts[inspection.split].tokens
    of = "all" if inspection.sampled == whole else f"{inspection.sampled:,} evenly spread ones of"
    yield from ("", f"What follows is of `{inspection.split}`: {of} {whole:,} tokens.")
    if inspection.lengths is not None:
        yield from ("", "## How long the documents are", "")
        yield from _lengths(inspection.lengths, inspection.counts[inspection.split].documents)
    yield from ("", "## The commonest tokens", "")
    yield from _commonest(inspection)
    yield from ("", "## The tokenizer", "")
    yield from _tokenizer(inspection.tokenizer)
    yield from ("", "## Samples at random")
    for excerpt in inspection.excerpts:
        yield from _excerpt(excerpt)
    yield from ("", "## Warnings", "")
    yield from [f"- {printable(each)}" for each in inspection.warnings] or [
        "None: the tokens look as those of text do."
    ]


def _dropped(inspection: Inspection) -> Iterator[str]:
    if inspection.dropped is None:
        yield "This corpus does not say."
    elif not inspection.dropped:
        yield "Nothing."
    else:
        commonest_first = sorted(inspection.dropped.items(), key=lambda each: (-each[1], each[0]))
        yield from _table(("reason", "documents"), [(reason, _count(number)) for reason, number in commonest_first])


def _lengths(lengths: Lengths, documents: int) -> Iterator[str]:
    of = "all" if lengths.documents == documents else f"{lengths.documents:,} evenly spread ones of"
    yield f"In tokens, end-of-text included, of {of} {documents:,} documents:"
    yield ""
    names = {0: "shortest", 50: "median", 100: "longest"}
    yield from _table(
        (*(names.get(percent, f"{percent} %") for percent in lengths.quantiles), "mean"),
        [(*(_count(length) for length in lengths.quantiles.values()), f"{lengths.mean:,.1f}")],
        text_columns=0,
    )
    yield ""
    most = max(lengths.histogram.values())
    yield from _table(
        ("from", "to", "documents", ""),
        [
            (_count(least), _count(2 * least - 1), _count(number), "#" * -(-number * _BAR // most))
            for least, number in sorted(lengths.histogram.items())
        ],
        text_columns=0,
    )


def _commonest(inspection: Inspection) -> Iterator[str]:
    yield from _table(
        ("token", "id", "share"),
        [(visible(each.content), str(each.id), f"{each.share:.2%}") for each in inspection.commonest],
    )
    yield ""
    yield (
        f"{inspection.distinct:,} distinct ones; {inspection.entropy:.2f} bits a token by itself; end-of-text is "
        f"{inspection.end_of_text:.2%} of all;"
    )
    yield (
        f"{inspection.repeated:.1%} of runs of 32 tokens had come before; {inspection.replaced:.3%} of the characters "
        "are U+FFFD."
    )


def _tokenizer(report: TokenizerReport) -> Iterator[str]:
    yield (
        f"{report.name}: {report.ids:,} ids, of which {report.unused:,} never come ({report.unused / report.ids:.1%}). "
        f"A token stands for"
    )
    yield (
        f"{report.bytes_per_token:.2f} bytes of training text, and for {report.held_out_bytes_per_token:.2f} of "
        "validation, from which nothing was learned."
    )
    yield f"Decoded and encoded anew, {report.agreement:.1%} of the tokens are the same."


def _excerpt(excerpt: Excerpt) -> Iterator[str]:
    yield from ("", f"From token {excerpt.first:,} on:", "")
    yield from (f"    {line}" for line in printable(excerpt.text).split("\n"))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 1) -> list[str]:
    """Columns of one width; the first `text_columns` and bars to the left, numbers to the right."""
    cells = [[printable(cell).replace("\n", "\\n").replace("|", "\\|") for cell in row] for row in (heads, *rows)]
    left = [column for column, head in enumerate(heads) if column < text_columns or not head]
    return markdown_table(cells[0], cells[1:], left)


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _megabytes(number: int | None) -> str:
    return "" if number is None else f"{number / 1e6:,.2f}"
