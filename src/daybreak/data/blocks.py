"""Documents between two stages of preparation: files of some megabytes, which are the unit of work.

    NAME.text      the documents' text, UTF-8, one behind the other
    NAME.ends      where each ends in it, little-endian uint64
    NAME.origins   a line of JSON a document: where it came from, and its date

Text is cut into pieces where no token can span the cut, so that a document of any length passes through in constant
memory: behind a character that is not white space, in front of one that is.
"""

import codecs
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, final

import numpy as np
import numpy.typing as npt

from daybreak.data.documents import Document, pieces_of
from daybreak.errors import UserError
from daybreak.files import file_problem, sha256_file

_FILES = ("text", "ends", "origins")
_READ_AT_ONCE = 1 << 20  # bytes


@final
@dataclass(frozen=True)
class Block:
    """Some documents on disk.

    Attributes:
        stem: path of its files, without their suffix.
        documents, characters, bytes: of text.
        replaced: characters that were not valid, now U+FFFD.
        sha256: of each file.
    """

    stem: str
    documents: int
    characters: int
    bytes: int
    replaced: int
    sha256: dict[str, str] = field(repr=False)


@final
@dataclass(frozen=True)
class _Totals:
    """Of what was written; `origins` is where its file ends."""

    characters: int = 0
    bytes: int = 0
    replaced: int = 0
    origins: int = 0


@final
class BlockWriter:
    """Writes documents into a block."""

    def __init__(self, stem: Path) -> None:
        self._stem = stem
        self._text = _file(stem, "text").open("w+b")
        self._origins = _file(stem, "origins").open("wb")
        self._ends: list[int] = []
        self._totals = self._totals_before = _Totals()

    @property
    def bytes(self) -> int:
        return self._totals.bytes

    def add(self, origin: str, date: str | None, pieces: Iterable[str]) -> None:
        """Append a document."""
        self._totals_before = replace(self._totals, origins=self._origins.tell())
        characters, size, replaced = self._totals.characters, self._totals.bytes, self._totals.replaced
        for piece in pieces:
            encoded = piece.encode()
            self._text.write(encoded)
            size += len(encoded)
            characters += len(piece)
            replaced += piece.count("\ufffd")
        self._totals = _Totals(characters, size, replaced)
        self._ends.append(size)
        self._origins.write(json.dumps([origin, date]).encode() + b"\n")

    def last(self) -> Iterator[str]:
        """The text of the document that was added last."""
        yield from _decoded(self._text, self._totals_before.bytes, self.bytes)
        self._text.seek(self.bytes)

    def take_back(self) -> None:
        """Remove the document that was added last; once."""
        self._totals = self._totals_before
        self._ends.pop()
        for file, size in ((self._text, self._totals.bytes), (self._origins, self._totals.origins)):
            file.seek(size)
            file.truncate()

    def close(self) -> Block:
        self._text.close()
        self._origins.close()
        _file(self._stem, "ends").write_bytes(np.asarray(self._ends, dtype="<u8").tobytes())
        hashes = {name: sha256_file(_file(self._stem, name)) for name in _FILES}
        totals = self._totals
        return Block(str(self._stem), len(self._ends), totals.characters, totals.bytes, totals.replaced, hashes)


def write_blocks(documents: Iterable[Document], folder: Path, size: int) -> Iterator[Block]:
    """Documents, in their order, as blocks that end with the document that brings them to `size` bytes."""
    writer, number = None, 0
    for document in documents:
        if writer is None:
            writer = BlockWriter(folder / f"{number:05d}")
        writer.add(document.origin, document.date, document.pieces)
        if writer.bytes >= size:
            yield writer.close()
            writer, number = None, number + 1
    if writer is not None:
        yield writer.close()


def read_block(block: Block) -> Iterator[Document]:
    """The documents of a block; the pieces of each must be read before the next.

    Raises:
        UserError: a file of it is missing or damaged.
    """
    stem = Path(block.stem)
    for name in _FILES:
        problem = file_problem(_file(stem, name), block.sha256[name])
        if problem is not None:
            raise UserError(f"{problem}; the same command makes it anew")
    ends: npt.NDArray[np.uint64] = np.fromfile(_file(stem, "ends"), dtype="<u8")
    start = 0
    with _file(stem, "text").open("rb") as text, _file(stem, "origins").open(encoding="utf-8") as origins:
        for end, line in zip(ends.tolist(), origins, strict=True):
            origin, date = json.loads(line)
            yield Document(origin, pieces_of(_decoded(text, start, end)), date)
            start = end


def _decoded(file: IO[bytes], start: int, end: int) -> Iterator[str]:
    file.seek(start)
    if end - start <= _READ_AT_ONCE:  # nearly all are so short
        yield file.read(end - start).decode()
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    while start < end:
        block = file.read(min(_READ_AT_ONCE, end - start))
        start += len(block)
        if piece := decoder.decode(block, final=start == end):
            yield piece


def _file(stem: Path, name: str) -> Path:
    return stem.with_name(f"{stem.name}.{name}")
