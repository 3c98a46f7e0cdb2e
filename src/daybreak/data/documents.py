"""Readers: files, folders and globs of text and JSONL, plain or compressed, as documents.

A document arrives as pieces of about a million characters, so that one of any length passes
through in constant memory. Pieces are cut where no token can span the cut: behind a character that
is not white space, in front of one that is.
"""

import bz2
import codecs
import glob
import gzip
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, final

from daybreak.errors import UserError
from daybreak.progress import say

_PIECE = 1 << 20
# U+001C to U+001F are blanks to Python and signs to the tokenizers' pattern.
_CUT = re.compile(r"(?<=[^\s\x1c-\x1f])(?=[^\S\x1c-\x1f])")
_SURROGATE = re.compile("[\ud800-\udfff]")
_READ_ERRORS: tuple[type[Exception], ...] = (OSError, EOFError, lzma.LZMAError, zlib.error)
_SNIFFED = 8192
_JSONL_SUFFIXES = {".jsonl", ".ndjson"}
_ARCHIVE_SUFFIXES = {".tar", ".tgz", ".tbz2", ".txz", ".zip", ".7z", ".rar"}
_TEXT_SUFFIXES = {".txt", ".text", ".md", ".rst", ".py", ""}


@final
@dataclass(frozen=True)
class Document:
    """One document; `pieces` can be read once."""

    origin: str
    pieces: Iterator[str]


def find_files(sources: Sequence[str]) -> list[Path]:
    """Expand files, folders and globs into files, sorted within each source, none twice.

    Raises:
        UserError: a source matches nothing, or is an archive.
    """
    found: dict[Path, None] = {}
    for source in sources:
        if not source:
            raise UserError("a source is empty; give a file, a folder, a glob or a named corpus")
        path = Path(source)
        if path.is_file():
            files = [path]
        elif path.is_dir():
            every = sorted(file for file in path.rglob("*") if file.is_file())
            files = [file for file in every if _is_readable(file.relative_to(path))]
            if len(files) < len(every):
                say(f"{source}: {len(every) - len(files)} of {len(every)} files are not text by name, and passed over")
        else:
            files = sorted(Path(match) for match in glob.glob(source, recursive=True) if Path(match).is_file())
        if not files:
            raise UserError(
                f"source {source!r} is no named corpus and matches no file of text or JSONL; "
                "named corpora: stdlib, zero-one, shakespeare"
            )
        for file in files:
            if _bare_suffix(file) in _ARCHIVE_SUFFIXES:
                raise UserError(f"{file} is an archive, which is not read; unpack it, and give the folder")
        found.update(dict.fromkeys(files))
    return list(found)


def read_documents(files: Iterable[Path]) -> Iterator[Document]:
    """The documents of `files` in order: one a line of JSONL (`{"text": ...}`), one a file of text.

    Invalid UTF-8 and lone surrogates become U+FFFD; a byte-order mark at the start is dropped.
    Blank documents are passed over.

    Raises:
        UserError: a file cannot be read, or a line is not JSON with a string under `text`.
    """
    for path in files:
        if _bare_suffix(path) in _JSONL_SUFFIXES:
            yield from _read_jsonl(path)
        else:
            yield from _read_text(path)


def pieces_of(chunks: Iterable[str]) -> Iterator[str]:
    """Re-cut a stream of text into pieces of about a million characters at safe places."""
    pending = ""
    for chunk in chunks:
        pending += chunk
        while len(pending) > 2 * _PIECE:
            cut = _CUT.search(pending, _PIECE)
            end = cut.start() if cut else _PIECE
            yield pending[:end]
            pending = pending[end:]
    if pending:
        yield pending


def _read_text(path: Path) -> Iterator[Document]:
    with _open_bytes(path) as file:
        chunks = _decoded(_blocks(file, path))
        first = next(chunks, "")
        while first and first.isspace():
            following = next(chunks, "")
            if not following:
                return
            first += following
        if first:
            yield Document(str(path), pieces_of(_chain(first, chunks)))


def _read_jsonl(path: Path) -> Iterator[Document]:
    with _open_bytes(path) as file:
        for number, line in enumerate(_lines(file, path), start=1):
            if not line.strip():
                continue
            origin = f"{path}:{number}"
            try:
                text = json.loads(line.decode("utf-8-sig", errors="replace"))["text"]
            except (ValueError, KeyError, TypeError, RecursionError):
                text = None
            if not isinstance(text, str):
                raise UserError(f'{origin}: expected a JSON object with a string under "text"')
            if text and not text.isspace():
                yield Document(origin, pieces_of([_SURROGATE.sub("\ufffd", text)]))


def _blocks(file: IO[bytes], path: Path) -> Iterator[bytes]:
    """Raises UserError, naming the file, if it cannot be read to its end or is no text."""
    first = True
    with _naming(path):
        while block := file.read(_PIECE):
            if first and b"\0" in block[:_SNIFFED]:
                raise UserError(f"{path} is not text: it holds NUL bytes; daybreak prepare reads text and JSONL")
            first = False
            yield block


def _lines(file: IO[bytes], path: Path) -> Iterator[bytes]:
    with _naming(path):
        yield from file


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except _READ_ERRORS + _zstd_errors(path) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _decoded(blocks: Iterable[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
    for block in blocks:
        if text := decoder.decode(block):
            yield text
    if text := decoder.decode(b"", final=True):
        yield text


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _bare_suffix(path: Path) -> str:
    """The suffix below a suffix of compression: `.jsonl` of `a.jsonl.xz`."""
    suffix = Path(path.stem).suffix if path.suffix.lower() in _OPENERS else path.suffix
    return suffix.lower()


def _is_readable(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and _bare_suffix(path) in _TEXT_SUFFIXES | _JSONL_SUFFIXES


def _open_bytes(path: Path) -> IO[bytes]:
    opener = _OPENERS.get(path.suffix.lower(), _open_plain)
    with _naming(path):
        return opener(path)


def _open_plain(path: Path) -> IO[bytes]:
    return path.open("rb")


def _open_gzip(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb")  # type: ignore[return-value]


def _open_xz(path: Path) -> IO[bytes]:
    return lzma.open(path, "rb")


def _open_bz2(path: Path) -> IO[bytes]:
    return bz2.open(path, "rb")


def _open_zst(path: Path) -> IO[bytes]:
    return _zstd(path).open(path, "rb")  # type: ignore[no-any-return]


def _zstd_errors(path: Path) -> tuple[type[Exception], ...]:
    return (_zstd(path).ZstdError,) if path.suffix.lower() == ".zst" else ()


def _zstd(path: Path) -> Any:
    """The standard library's module from Python 3.14 on; the package that carries it back before."""
    try:
        from backports import zstd
    except ImportError:
        raise UserError(f"{path} needs the package backports.zstd: pip install 'daybreak[data]'") from None
    return zstd


_OPENERS: dict[str, Callable[[Path], IO[bytes]]] = {
    ".gz": _open_gzip,
    ".xz": _open_xz,
    ".bz2": _open_bz2,
    ".zst": _open_zst,
}
