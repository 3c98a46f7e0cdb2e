"""Documents, and the readers of text and JSONL.

A document arrives as pieces of about a million characters, so that a text of any length passes
through in constant memory. Pieces are cut where no token can span the cut: behind a character that
is not white space, in front of one that is.
"""

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from io import BufferedReader
from typing import Any, final

from daybreak.errors import UserError

_PIECE = 1 << 20
_LONGEST_LINE = 1 << 30
# U+001C to U+001F are blanks to Python and signs to the tokenizers' pattern.
_CUT = re.compile(r"(?<=[^\s\x1c-\x1f])(?=[^\S\x1c-\x1f])")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SNIFFED = 8192
_DAY = re.compile(r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2}))?)?(?![0-9])")
DATE_KEYS = ("date", "timestamp", "published")

WITHOUT_TEXT = "records without text"
OTHER_COMPONENTS = "records of other components"


@final
@dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
        origin: where it comes from, for people: `file:line`, `archive:member`, a URL.
        pieces: its text, about a million characters each; they can be read once, before the next document.
        date: as 2018-06-01, where its record has one that can be read.
    """

    origin: str
    pieces: Iterator[str]
    date: str | None = None


@final
@dataclass(frozen=True)
class Fields:
    """How records are read.

    Attributes:
        text_key: the key or column that holds the text.
        components: those of The Pile (arXiv 2101.00027) to read, by `meta.pile_set_name`; all records if empty.
    """

    text_key: str = "text"
    components: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"text_key": self.text_key, "components": list(self.components)}


PLAIN = Fields()


@final
@dataclass
class Tally:
    """What readers came across.

    Attributes:
        passed: how many of what were passed over.
        components: how many records each component had, counted only where components are chosen.
    """

    passed: Counter[str] = field(default_factory=Counter)
    components: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Tally") -> None:
        self.passed.update(other.passed)
        self.components.update(other.components)

    def to_json(self) -> dict[str, dict[str, int]]:
        return {"passed": dict(self.passed), "components": dict(self.components)}

    @classmethod
    def from_json(cls, value: Mapping[str, Mapping[str, int]]) -> "Tally":
        return cls(Counter(value["passed"]), Counter(value["components"]))


def document_of(record: Mapping[str, Any], origin: str, fields: Fields, tally: Tally) -> Document | None:
    """The document of one record; None, and counted, if it is blank or of a component that is not read.

    Lone surrogates become U+FFFD.

    Raises:
        UserError: there is no string under the key of the text.
    """
    text = record.get(fields.text_key)
    if not isinstance(text, str):
        keys = ", ".join(sorted(map(str, record))[:20]) or "nothing"
        raise UserError(
            f'{origin}: expected a string under "{fields.text_key}", found {keys}; --text-key names its key'
        )
    if fields.components:
        component = _component_of(record)
        if component is not None:
            tally.components[component] += 1
        if component not in fields.components:
            tally.passed[OTHER_COMPONENTS] += 1
            return None
    if not text or text.isspace():
        tally.passed[WITHOUT_TEXT] += 1
        return None
    return Document(origin, pieces_of([text if text.isascii() else _SURROGATE.sub("\ufffd", text)]), _date_of(record))


def read_text(file: BufferedReader, origin: str, tally: Tally) -> Iterator[Document]:
    """A file of text as one document, none if it is blank.

    Invalid UTF-8 becomes U+FFFD; a byte-order mark at the start is dropped.

    Raises:
        UserError: it cannot be read to its end, or is no text.
    """
    chunks = _decoded(file, origin)
    first = next(chunks, "")
    while first and first.isspace():
        following = next(chunks, "")
        first = first + following if following else ""
    if first:
        yield Document(origin, pieces_of(_chain(first, chunks)))
    else:
        tally.passed[WITHOUT_TEXT] += 1


def read_jsonl(file: BufferedReader, origin: str, fields: Fields, tally: Tally) -> Iterator[Document]:
    """A document for each line (`{"text": ...}`); empty lines are nothing.

    Invalid UTF-8 and lone surrogates become U+FFFD. A line is held in memory whole: one of 200 MB takes 0.4 GB, and
    1.5 GB if it holds a single character beyond U+FFFF, for which Python gives every character four bytes.

    Raises:
        UserError: a line is not JSON with a string under the key of the text, or longer than 1 GiB.
    """
    number = 0
    while line := file.readline(_LONGEST_LINE + 1):
        number += 1
        if line.isspace():
            continue
        where = f"{origin}:{number}"
        if len(line) > _LONGEST_LINE:
            raise UserError(f"{where} is longer than 1 GiB; give such a text as a file of its own")
        decoded_line = line.decode("utf-8-sig", errors="replace")
        line = b""  # a long line is not kept in memory twice
        try:
            record = json.loads(decoded_line)
        except (ValueError, RecursionError):
            record = None
        decoded_line = ""
        if not isinstance(record, dict) or not isinstance(record.get(fields.text_key), str):
            raise UserError(f'{where}: expected a JSON object with a string under "{fields.text_key}"')
        document = document_of(record, where, fields, tally)
        del record
        if document is not None:
            yield document


def require_text_bytes(file: BufferedReader, origin: str) -> None:
    """Raises UserError if there are NUL bytes among the next few thousand, which are not consumed."""
    if b"\0" in file.peek(_SNIFFED)[:_SNIFFED]:
        raise UserError(f"{origin} is not text: it holds NUL bytes; daybreak prepare reads text and JSONL")


def _decoded(file: BufferedReader, origin: str) -> Iterator[str]:
    require_text_bytes(file, origin)
    decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
    while block := file.read(_PIECE):
        if text := decoder.decode(block):
            yield text
    if text := decoder.decode(b"", final=True):
        yield text


def pieces_of(chunks: Iterable[str]) -> Iterator[str]:
    """Re-cut a stream of text into pieces of about a million characters at safe places."""
    pending = ""
    for chunk in chunks:
        pending += chunk
        start = 0
        while len(pending) - start > 2 * _PIECE:
            cut = _CUT.search(pending, start + _PIECE, start + 2 * _PIECE)
            end = cut.start() if cut else start + _PIECE
            yield pending[start:end]
            start = end
        pending = pending[start:]
    if pending:
        yield pending


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _component_of(record: Mapping[str, Any]) -> str | None:
    meta = record.get("meta")
    component = meta.get("pile_set_name") if isinstance(meta, Mapping) else None
    return component if isinstance(component, str) else None


def _date_of(record: Mapping[str, Any]) -> str | None:
    meta = record.get("meta")
    for table in (record, meta) if isinstance(meta, Mapping) else (record,):
        for key in DATE_KEYS:
            found = table.get(key)
            if isinstance(found, date):  # as Parquet has it, with or without a time
                return found.isoformat()[:10]
            if isinstance(found, str):
                return _day_of(found)
    return None


def _day_of(text: str) -> str | None:
    """The day of an ISO date or time, of which months and days may be missing; a date that cannot be read is none."""
    found = _DAY.match(text)
    if found is None:
        return None
    with suppress(ValueError):  # as 2018-02-30
        return date(int(found[1]), int(found[2] or 1), int(found[3] or 1)).isoformat()
    return None
