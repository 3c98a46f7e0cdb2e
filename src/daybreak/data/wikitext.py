"""WikiText (arXiv 1609.07843) by article: the hub's copy has a row for each line."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

from daybreak.data.documents import Document, Tally, pieces_of
from daybreak.data.inputs import Input

# " = Title = "; headings inside an article have more signs: " = = Section = = ".
_TITLE = re.compile(r" = (?!= )[^\n]*(?<! =) = \n?")


def articles_of(text: str) -> list[str]:
    """The articles of a WikiText file; a text without their titles is one article."""
    starts = [0]
    for line in re.finditer(r"^.*\n?", text, re.MULTILINE):
        if _TITLE.fullmatch(line.group()):
            starts.append(line.start())
    pieces = (text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True))
    return [piece for piece in pieces if piece.strip()]


@final
@dataclass(frozen=True)
class WikitextInput(Input):
    """The articles in the lines of other inputs, which follow one another."""

    lines: tuple[Input, ...]

    def read(self, tally: Tally) -> Iterator[Document]:
        origin, article = "", list[str]()
        for line in self._lines():
            text = "".join(line.pieces)
            if _TITLE.fullmatch(text) and article:
                yield Document(origin, pieces_of(article))
                article = []
            origin = origin if article else line.origin
            article.append(text)
        if article:
            yield Document(origin, pieces_of(article))

    def identity(self) -> dict[str, Any]:
        return {"articles": [lines.identity() for lines in self.lines]}

    def _lines(self) -> Iterator[Document]:
        for lines in self.lines:
            yield from lines.read(Tally())  # blank lines are no documents that were passed over
