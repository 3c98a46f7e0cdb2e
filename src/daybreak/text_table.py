"""Tables as lines of text: plain, or in Markdown that reads well in a terminal."""

from collections.abc import Container, Sequence

_NARROWEST = 3  # signs of a column in Markdown


def plain_table(rows: Sequence[Sequence[str]], left: Container[int]) -> list[str]:
    """Rows whose columns stand under one another.

    Args:
        left: the columns of words; the others, of numbers, stand at the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_padded(row, widths, left)).rstrip() for row in rows]


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: Container[int]) -> list[str]:
    """The same with a line under its heads; no cell may hold a line break or a bar."""
    widths = [max(_NARROWEST, *map(len, column)) for column in zip(heads, *rows, strict=True)]
    rules = ["-" * width if column in left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return [f"| {' | '.join(_padded(row, widths, left))} |" for row in (heads, rules, *rows)]


def _padded(row: Sequence[str], widths: Sequence[int], left: Container[int]) -> list[str]:
    return [
        cell.ljust(width) if column in left else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
