"""Files as streams of bytes: plain, or decompressed by their name; what cannot be read is named."""

import bz2
import gzip
import io
import lzma
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import IO, Any, final

from daybreak.errors import UserError

BLOCK = 1 << 20
_SHORT_NAMES = {".tgz": (".tar", ".gz"), ".txz": (".tar", ".xz"), ".tbz2": (".tar", ".bz2"), ".tzst": (".tar", ".zst")}


def suffixes(name: PurePath) -> tuple[str, str]:
    """What a file is and how it is packed, by its name: `(".jsonl", ".xz")` of `a.jsonl.xz`."""
    last = name.suffix.lower()
    if last in _SHORT_NAMES:
        return _SHORT_NAMES[last]
    if last in _OPENERS:
        return Path(name.stem).suffix.lower(), last
    return last, ""


@contextmanager
def open_bytes(path: Path) -> Iterator[io.BufferedReader]:
    """The content of a file, decompressed where its name says that it is packed.

    Raises:
        UserError: it cannot be read; it is damaged or breaks off, said when reading comes to it.
    """
    with naming(str(path)):
        file = path.open("rb")
    with file:
        yield unpacked(file, path, str(path))


def unpacked(
    file: IO[bytes], name: PurePath, origin: str, count: Callable[[int], None] | None = None
) -> io.BufferedReader:
    """A stream of the content of `file`, decompressed where `name` says that it is packed.

    Args:
        origin: what faults are blamed on.
        count: is given the size of each block that was read, in bytes, and may raise.
    """
    packing = suffixes(name)[1]
    with naming(origin):
        source = _OPENERS[packing](file) if packing else file
    return io.BufferedReader(_Named(source, origin, count), BLOCK)


@contextmanager
def naming(origin: str) -> Iterator[None]:
    """Turn the faults of files, packers and archives into a UserError that names `origin`."""
    try:
        yield
    except _read_errors() as error:
        raise UserError(f"{origin} cannot be read: {error}") from error


@final
class _Named(io.RawIOBase):
    """A stream whose faults name it."""

    def __init__(self, source: IO[bytes], origin: str, count: Callable[[int], None] | None) -> None:
        super().__init__()
        self._source = source
        self._origin = origin
        self._count = count

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with naming(self._origin):
            block = self._source.read(len(buffer))
        if self._count is not None:
            self._count(len(block))
        buffer[: len(block)] = block
        return len(block)


def _read_errors() -> tuple[type[Exception], ...]:
    errors: tuple[type[Exception], ...] = (
        OSError, EOFError, NotImplementedError, lzma.LZMAError, zlib.error, tarfile.TarError, zipfile.BadZipFile,
    )  # fmt: skip
    zstd = sys.modules.get("backports.zstd")
    return errors if zstd is None else (*errors, zstd.ZstdError)


def _open_gzip(file: IO[bytes]) -> IO[bytes]:
    return gzip.open(file, "rb")  # type: ignore[return-value]


def _open_xz(file: IO[bytes]) -> IO[bytes]:
    return lzma.open(file, "rb")


def _open_bz2(file: IO[bytes]) -> IO[bytes]:
    return bz2.open(file, "rb")


def _open_zst(file: IO[bytes]) -> IO[bytes]:
    """By the standard library's module of Python 3.14, which a package carries back to those before."""
    try:
        from backports import zstd
    except ImportError:
        raise UserError("files of .zst need the package backports.zstd: pip install 'daybreak[data]'") from None
    return zstd.open(file, "rb")  # type: ignore[return-value]


_OPENERS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".gz": _open_gzip,
    ".xz": _open_xz,
    ".bz2": _open_bz2,
    ".zst": _open_zst,
}
