"""Inputs: what one worker reads from its beginning to its end; and the files that a source stands for."""

import atexit
import glob
import hashlib
import json
import shutil
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from io import BufferedReader
from pathlib import Path, PurePath
from typing import IO, Any, final

from daybreak.data.archives import TAR, ZIP, members
from daybreak.data.compression import BLOCK, open_bytes, suffixes
from daybreak.data.documents import PLAIN, Document, Fields, Tally, read_jsonl, read_text
from daybreak.data.scrape import read_html, read_warc
from daybreak.data.tables import read_csv, read_parquet
from daybreak.errors import UserError
from daybreak.progress import human_bytes, say

NAMED_CORPORA = ("stdlib", "zero-one", "shakespeare", "enwik8", "text8", "wikitext", "openwebtext", "fineweb-edu")

_TEXT = {".txt", ".text", ".md", ".rst", ".py", ""}
_JSONL = {".jsonl", ".ndjson"}
_TABLES = {".csv": ",", ".tsv": "\t"}
_HTML = {".html", ".htm"}
_WARC, _PARQUET = ".warc", ".parquet"
_MEMBERS = _TEXT | _JSONL | set(_TABLES) | _HTML | {_WARC}
_FILES = _MEMBERS | {_PARQUET, TAR, ZIP}
_UNREAD_ARCHIVES = {".7z", ".rar"}
_BUNDLE_BYTES = 4 << 20


@dataclass(frozen=True)
class Input(ABC):
    """What one worker reads from its beginning to its end; small, so that it can be sent to one.

    Attributes:
        name: for people.
        size: bytes on disk; None if that is not known.
    """

    name: str
    size: int | None

    @abstractmethod
    def read(self, tally: Tally) -> Iterator[Document]:
        """Its documents, in the same order each time; what is passed over is counted.

        Raises:
            UserError: it cannot be read to its end.
        """

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """JSON of what it would be another input without."""


@final
@dataclass(frozen=True)
class FileInput(Input):
    """A file of any kind that can be read, known by its hash if that is known, else by its place and time."""

    path: Path
    fields: Fields
    mtime_ns: int
    sha256: str | None = None

    def read(self, tally: Tally) -> Iterator[Document]:
        yield from _read_file(self.path, self.name, self.fields, tally)
        found = self.path.stat()
        if (found.st_size, found.st_mtime_ns) != (self.size, self.mtime_ns):
            raise UserError(f"{self.path} changed while it was read; prepare again once it stays as it is")

    def identity(self) -> dict[str, Any]:
        content = {"sha256": self.sha256} if self.sha256 else {"path": str(self.path), "mtime_ns": self.mtime_ns}
        return {"size": self.size, **content, "fields": self.fields.to_json()}


@final
@dataclass(frozen=True)
class BundleInput(Input):
    """Small inputs that follow one another."""

    inputs: tuple[Input, ...]

    def read(self, tally: Tally) -> Iterator[Document]:
        for each in self.inputs:
            yield from each.read(tally)

    def identity(self) -> dict[str, Any]:
        return {"inputs": [each.identity() for each in self.inputs]}


def files_of(one: Input) -> tuple[Input, ...]:
    """The inputs that are bundled in one; itself, if it is no bundle."""
    return one.inputs if isinstance(one, BundleInput) else (one,)


def file_inputs(paths: Sequence[Path], fields: Fields) -> tuple[Input, ...]:
    """The inputs that files are now, in their order; small ones that follow one another are bundled.

    Raises:
        UserError: there is no such file.
    """
    bundles: list[list[FileInput]] = []
    filled = 0
    for path in paths:
        file = file_input(path, fields)
        size = file.size or 0
        if bundles and filled + size <= _BUNDLE_BYTES:
            bundles[-1].append(file)
            filled += size
        else:
            bundles.append([file])
            filled = size
    return tuple(files[0] if len(files) == 1 else _bundle(files) for files in bundles)


def file_input(path: Path, fields: Fields, *, name: str = "", sha256: str | None = None) -> FileInput:
    """The input that a file is now.

    Raises:
        UserError: there is no such file.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return FileInput(name or str(path), found.st_size, path.absolute(), fields, found.st_mtime_ns, sha256)


def read_documents(files: Iterable[Path], fields: Fields = PLAIN) -> Iterator[Document]:
    """The documents of `files`, one file after the other.

    Raises:
        UserError: a file cannot be read.
    """
    for path in files:
        yield from _read_file(path, str(path), fields, Tally())


def find_files(sources: Sequence[str]) -> list[Path]:
    """Expand files, folders and globs into files, sorted within each source, none twice.

    Raises:
        UserError: a source matches nothing, or is an archive of a kind that is not read.
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
            corpora = {file.parent for file in every if file.name == "manifest.json"}  # of our own, or to be left alone
            readable = [file for file in every if _is_readable(file.relative_to(path), _FILES)]
            files = [file for file in readable if not corpora.intersection(file.parents)]
            if len(files) < len(every):
                say(f"{source}: {len(every) - len(files)} of {len(every)} files are not text by name, and passed over")
        else:
            files = sorted(Path(match) for match in glob.glob(source, recursive=True) if Path(match).is_file())
        if not files:
            others = [*NAMED_CORPORA, *map(str, path.parent.glob("*"))]
            hint = "".join(f" (did you mean {other}?)" for other in get_close_matches(source, others, n=1))
            raise UserError(
                f"source {source!r} is no named corpus and matches no file that can be read{hint}; "
                f"named corpora: {', '.join(NAMED_CORPORA)}"
            )
        for file in files:
            if suffixes(file)[0] in _UNREAD_ARCHIVES:
                raise UserError(f"{file} is an archive of a kind that is not read; unpack it, and give the folder")
        found.update(dict.fromkeys(files))
    return list(found)


def standard_input(fields: Fields) -> FileInput:
    """All of standard input, kept in a temporary file until this process ends.

    JSONL if its first line is a JSON object, else text.
    """
    folder = Path(tempfile.mkdtemp(prefix="daybreak-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    digest = hashlib.sha256()
    with (folder / "stdin").open("wb") as kept:
        while block := sys.stdin.buffer.read(BLOCK) if sys.stdin is not None else b"":
            kept.write(block)
            digest.update(block)
    with (folder / "stdin").open("rb") as file:
        kind = ".jsonl" if _begins_with_an_object(file) else ".txt"
    named = (folder / "stdin").rename(folder / f"stdin{kind}")
    say(f"standard input: {human_bytes(named.stat().st_size)}, read as {'JSONL' if kind == '.jsonl' else 'text'}")
    return file_input(named, fields, name="standard input", sha256=digest.hexdigest())


def _bundle(files: Sequence[FileInput]) -> "BundleInput":
    size = sum(file.size or 0 for file in files)
    return BundleInput(f"{files[0].name} and {len(files) - 1:,} more", size, tuple(files))


def _begins_with_an_object(file: IO[bytes]) -> bool:
    try:
        return isinstance(json.loads(file.readline(1 << 30).decode("utf-8-sig")), dict)
    except (ValueError, RecursionError):
        return False


def _read_file(path: Path, origin: str, fields: Fields, tally: Tally) -> Iterator[Document]:
    kind, packing = suffixes(path)
    if packing and kind in (ZIP, _PARQUET):
        raise UserError(f"{path} is packed twice; unpack it once, and give what comes out")
    if kind == _PARQUET:
        yield from read_parquet(path, origin, fields, tally)
    elif kind in (TAR, ZIP):
        for name, stream in members(path, lambda name: _is_readable(name, _MEMBERS), tally):
            yield from _read_stream(stream, suffixes(name)[0], f"{origin}:{name}", fields, tally)
    else:
        with open_bytes(path) as stream:
            yield from _read_stream(stream, kind, origin, fields, tally)


def _read_stream(stream: BufferedReader, kind: str, origin: str, fields: Fields, tally: Tally) -> Iterator[Document]:
    """By the kind that the name tells; whatever is none of them is text."""
    if kind in _JSONL:
        return read_jsonl(stream, origin, fields, tally)
    if kind in _TABLES:
        return read_csv(stream, origin, _TABLES[kind], fields, tally)
    if kind in _HTML:
        return read_html(stream, origin, tally)
    if kind == _WARC:
        return read_warc(stream, origin, tally)
    return read_text(stream, origin, tally)


def _is_readable(name: PurePath, kinds: set[str]) -> bool:
    """Not hidden, and of one of these kinds by its name."""
    return not any(part.startswith(".") for part in name.parts) and suffixes(name)[0] in kinds
