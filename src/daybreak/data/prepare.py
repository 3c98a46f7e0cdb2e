"""Documents -> tokens -> shards, in memory that does not grow with the text.

The sources are read two or three times: to count, to learn a tokenizer where one is learned, and
to write. Validation is every document that a hash of its number picks, so that the choice does not
depend on the order of work; a single document is split at its tail.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from daybreak.data.corpora import Source, open_sources
from daybreak.data.hashing import splitmix64
from daybreak.data.shards import Corpus, ShardWriter, token_dtype, write_manifest
from daybreak.data.tokenizer import is_learned, make_tokenizer
from daybreak.errors import UserError
from daybreak.files import require_space, require_text, whole_folder
from daybreak.progress import progress, say

_TOKENIZER_SAMPLE = 100_000_000  # characters that a BPE is learned from, at most


@final
@dataclass(frozen=True)
class _Survey:
    """What one reading of the sources found."""

    documents: int
    characters: int
    bytes: int
    lowest: int  # number of the document whose hash is the lowest
    highest: int


@final
@dataclass(frozen=True)
class _Piece:
    """A piece of a document and the split it belongs to."""

    validation: bool
    starts_document: bool
    text: str


def prepare(names: Sequence[str], out: Path, *, tokenizer: str = "gpt2", validation: float = 0.1) -> Corpus:
    """Make a corpus of named corpora, files, folders and globs.

    Args:
        names: what to read, in this order.
        out: the folder to make; it appears only when it is whole.
        tokenizer: `bytes`, `chars`, `gpt2`, `bpe:SIZE`, or the path of a tokenizer or corpus.
        validation: share of the documents kept for validation, between 0 and 1; of the
            characters where there is only one document.

    Raises:
        UserError: a source is missing, unreadable or empty; `out` exists; no space.
    """
    if not 0 < validation < 1:
        raise UserError(f"--val {validation:g} is no share: it must lie between 0 and 1, as 0.1")
    require_text(out)
    if out.exists():
        raise UserError(f"{out} exists already; choose another --out, or delete it to prepare it again")
    if not is_learned(tokenizer):
        make_tokenizer(tokenizer, iter(()))  # a wrong name or missing ranks are said before much is read
    sources = open_sources(names)
    survey = _survey(sources)
    if survey.characters < 2:
        raise UserError(f"the sources hold no text to train on and to validate on: {', '.join(names)}")

    say(f"tokenizer {tokenizer}, {survey.documents:,} documents, {survey.bytes / 1e6:,.1f} MB of text")
    learned = make_tokenizer(tokenizer, _text_to_learn_from(sources, survey, validation, tokenizer))
    if tokenizer == learned.name and tokenizer.startswith("bpe:") and learned.vocab_size < int(tokenizer[4:]):
        say(f"the text gave {learned.vocab_size:,} ids: it has too few distinct pairs for more")
    dtype = token_dtype(learned.vocab_size)
    require_space(out, survey.bytes * dtype.itemsize // (1 if tokenizer in ("bytes", "chars") else 2))

    with whole_folder(out) as folder:
        writers = {name: ShardWriter(folder, name, dtype) for name in ("train", "validation")}
        with progress("tokenising", survey.bytes, "B") as advance:
            for piece in _split(sources, survey, validation):
                writer = writers["validation" if piece.validation else "train"]
                if piece.starts_document:
                    writer.start_document(learned.end_of_text)
                size = len(piece.text.encode())
                writer.write(learned.encode(piece.text), size)
                advance(size)
        splits = {name: writer.close() for name, writer in writers.items()}
        write_manifest(folder, learned, splits, list(names))
    return Corpus.open(out)


def _survey(sources: list[Source]) -> _Survey:
    documents = characters = size = lowest = highest = replaced = 0
    with progress("reading", None, "B") as advance:
        for source in sources:
            for document in source.read():
                for piece in document.pieces:
                    characters += len(piece)
                    piece_bytes = len(piece.encode())
                    size += piece_bytes
                    replaced += piece.count("\ufffd")
                    advance(piece_bytes)
                if splitmix64(documents) < splitmix64(lowest):
                    lowest = documents
                if splitmix64(documents) > splitmix64(highest):
                    highest = documents
                documents += 1
    if replaced:
        say(f"warning: {replaced:,} characters were not valid UTF-8 and became U+FFFD; iconv converts other encodings")
    return _Survey(documents, characters, size, lowest, highest)


def _split(sources: list[Source], survey: _Survey, validation: float) -> Iterator[_Piece]:
    if survey.documents == 1:
        boundary = int(survey.characters * (1 - validation))
        yield from _split_tail(sources, min(max(1, boundary), survey.characters - 1))
        return
    threshold = validation * 2**64
    number = 0
    for source in sources:
        for document in source.read():
            picked = splitmix64(number) < threshold
            # Neither split may be empty, however few documents there are.
            in_validation = (picked or number == survey.lowest) and number != survey.highest
            for index, text in enumerate(document.pieces):
                yield _Piece(in_validation, index == 0, text)
            number += 1


def _split_tail(sources: list[Source], boundary: int) -> Iterator[_Piece]:
    position = 0
    for source in sources:
        for document in source.read():
            for text in document.pieces:
                head, tail = text[: max(0, boundary - position)], text[max(0, boundary - position) :]
                if head:
                    yield _Piece(False, position == 0, head)
                if tail:
                    yield _Piece(True, position <= boundary, tail)
                position += len(text)


def _text_to_learn_from(sources: list[Source], survey: _Survey, validation: float, name: str) -> Iterator[str]:
    """All text for the characters in it; for a BPE the training split, thinned evenly to a bounded amount."""
    if name == "chars":
        return (text for source in sources for document in source.read() for text in document.pieces)
    stride = -(-survey.characters // _TOKENIZER_SAMPLE)
    training = (piece.text for piece in _split(sources, survey, validation) if not piece.validation)
    return (text for number, text in enumerate(training) if number % stride == 0)
