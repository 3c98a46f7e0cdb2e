"""Text as one stream of tokens, and how much text that is, counted from the text itself."""

import codecs
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from daybreak.data.corpora import open_sources, settle
from daybreak.data.documents import PLAIN, Document, Fields, Tally
from daybreak.data.shards import Corpus, TokenStream
from daybreak.errors import UserError
from daybreak.evaluate.language_model import LanguageModel
from daybreak.progress import progress, say

_READ_AT_ONCE = 1 << 20  # tokens


@final
@dataclass(frozen=True)
class Amount:
    """How much text there is.

    Attributes:
        bytes: of its UTF-8.
        characters: Unicode code points.
        words: what white space separates.
    """

    documents: int
    bytes: int
    characters: int
    words: int

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(
            self.documents + other.documents,
            self.bytes + other.bytes,
            self.characters + other.characters,
            self.words + other.words,
        )


@final
@dataclass(frozen=True)
class Text:
    """Documents as tokens, each behind the token that begins it.

    Attributes:
        tokens: all but the first are targets, each exactly once.
        uncounted: an id that is no target, wherever it stands; None for none.
        amount: of the text that the targets stand for.
    """

    tokens: TokenStream
    uncounted: int | None
    amount: Amount


def read_text(model: LanguageModel, sources: Sequence[str], fields: Fields = PLAIN) -> Text:
    """The documents of all that `daybreak prepare` reads, in their order, as tokens of the model.

    The first token of the text is predicted from `model.begin`. Behind each document but the last its end is a target,
    which stands for no bytes, as in a corpus. Where another token begins the next document, that is no target, since
    no model was taught to foresee it.

    Raises:
        UserError: a source cannot be read, holds no text, or characters that the tokenizer lacks.
    """
    between = _as_bytes([model.end] if model.begin == model.end else [model.end, model.begin])
    tokens, counter, tally, lost = array("I"), _Counter(), Tally(), 0
    tokens.frombytes(_as_bytes([model.begin]))
    with progress("reading", None, "B") as advance:
        for document in _documents(sources, fields, tally):
            if counter.documents:
                tokens.frombytes(between)
            counter.begin()
            recovered = True
            for piece in document.pieces:
                ids = model.encode(piece)
                tokens.frombytes(_as_bytes(ids))
                recovered = recovered and model.decode(ids) == piece
                advance(counter.add(piece))
            lost += not recovered
    settle(tally, fields)
    if len(tokens) < 2:
        raise UserError(f"there is no text in {', '.join(map(str, sources))}")
    if lost:
        say(
            f"warning: the tokenizer of {model.name} does not give back the text of {lost:,} of {counter.documents:,} "
            "documents; what it drops costs nothing, so the figures are too low to compare"
        )
    ids = np.frombuffer(tokens, dtype=np.uint32)
    return Text(TokenStream([ids]), None if model.begin == model.end else model.begin, counter.amount)


def text_of_split(corpus: Corpus) -> Text:
    """The validation split of a corpus; its first token, an end-of-text, is no target.

    Raises:
        UserError: it has none.
    """
    stream = corpus.stream("validation")
    if len(stream) < 2:
        raise UserError(
            f"{corpus.path} has no validation text to measure the loss on; "
            "prepare it with a larger --val, or give --text"
        )
    end_of_text, token_bytes = corpus.tokenizer.end_of_text, corpus.tokenizer.token_bytes
    counter, size = _Counter(), 0
    counter.begin()
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for start in range(1, len(stream), _READ_AT_ONCE):
        ids = stream.read(start, min(start + _READ_AT_ONCE, len(stream)))
        size += int(token_bytes[ids].sum())
        for number, part in enumerate(np.split(ids, np.flatnonzero(ids == end_of_text))):
            if number:
                counter.add(decoder.decode(b"", final=True))
                counter.begin()
            counter.add(decoder.decode(corpus.tokenizer.decode_bytes(part[1:] if number else part)))
    counter.add(decoder.decode(b"", final=True))
    # A file of tokens from elsewhere may begin or end within a character: its bytes are those of its tokens.
    amount = Amount(counter.documents, size, counter.characters, counter.words)
    return Text(stream, None, amount)


def _as_bytes(ids: Sequence[int] | npt.NDArray[np.uint32]) -> bytes:
    return np.asarray(ids, dtype=np.uint32).tobytes()


def _documents(sources: Sequence[str], fields: Fields, tally: Tally) -> Iterator[Document]:
    for source in open_sources(sources, fields):
        for each in source.inputs:
            yield from each.read(tally)


@final
class _Counter:
    """How much text passes, document by document, piece by piece."""

    def __init__(self) -> None:
        self.documents = self.bytes = self.characters = self.words = 0
        self._within_word = False

    @property
    def amount(self) -> Amount:
        return Amount(self.documents, self.bytes, self.characters, self.words)

    def begin(self) -> None:
        """What follows is another document."""
        self.documents += 1
        self._within_word = False

    def add(self, piece: str) -> int:
        """Returns its bytes."""
        if not piece:
            return 0
        size = len(piece) if piece.isascii() else len(piece.encode())
        goes_on = self._within_word and not piece[0].isspace()
        self.bytes += size
        self.characters += len(piece)
        self.words += len(piece.split()) - goes_on
        self._within_word = not piece[-1].isspace()
        return size
