"""Archives, read member by member as streams; nothing is unpacked to disk.

What could harm is refused: names that lead out of the folder, links, devices, encrypted members, and
bombs, that is more than 200 times the bytes of the archive once they exceed 64 MB.
"""

import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import IO, final

from daybreak.data.compression import naming, open_bytes, suffixes, unpacked
from daybreak.data.documents import Tally
from daybreak.errors import UserError
from daybreak.progress import human_bytes

TAR, ZIP = ".tar", ".zip"
UNREADABLE_MEMBERS = "members of archives that are not text by name"
_HARMLESS_BYTES = 64 << 20
_RATIO = 200
_KEPT = 4 * tarfile.RECORDSIZE


def members(
    path: Path, wanted: Callable[[PurePosixPath], bool], tally: Tally
) -> Iterator[tuple[PurePosixPath, BufferedReader]]:
    """The files in a tar or zip archive in their order; each stream is read before the next is asked for.

    Args:
        wanted: tells by its name whether a member is opened; the others are counted.

    Raises:
        UserError: the archive is damaged, breaks off, or holds what is refused, wanted or not.
    """
    limit = max(_HARMLESS_BYTES, _RATIO * path.stat().st_size)
    content = _Meter(path, limit)
    found = _zip_files(path) if suffixes(path)[0] == ZIP else _tar_files(path, _Meter(path, limit))
    with naming(str(path)):
        for name, file in found:
            member = PurePosixPath(name)
            if wanted(member):
                yield member, unpacked(file, member, f"{path}:{name}", content.count)
            else:
                tally.passed[UNREADABLE_MEMBERS] += 1


def _zip_files(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            _require_harmless_name(path, info.orig_filename)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                _refuse(path, info.filename, "is a link or a device")
            if info.flag_bits & 1:
                _refuse(path, info.filename, "is encrypted")
            if not info.is_dir():
                with archive.open(info) as file:
                    yield info.filename, file


def _tar_files(path: Path, meter: "_Meter") -> Iterator[tuple[str, IO[bytes]]]:
    with open_bytes(path) as stream:
        watched = _Watched(stream, meter)
        with tarfile.open(fileobj=watched, mode="r|") as archive:  # type: ignore[call-overload]
            while (info := archive.next()) is not None:
                archive.members = []  # or it would hold every header
                name = info.name.encode("utf-8", errors="replace").decode()
                _require_harmless_name(path, name)
                if not (info.isfile() or info.isdir()):
                    _refuse(path, name, "is a link or a device")
                if info.isfile():
                    file = archive.extractfile(info)
                    assert file is not None
                    yield name, file
            # tarfile takes a damaged header in the middle for the end; the end is a block of zeros.
            if watched.at(archive.offset, tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"it is damaged or breaks off at byte {archive.offset:,}")


def _require_harmless_name(path: Path, name: str) -> None:
    if "\0" in name:
        _refuse(path, name.replace("\0", "\\0"), "has a name with NUL")
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[/\\]", name):
        _refuse(path, name, "has an absolute path")
    if ".." in re.split(r"[/\\]", name):
        _refuse(path, name, "leads out of the archive's folder")


def _refuse(path: Path, name: str, problem: str) -> None:
    raise UserError(f"{path} is refused: its member {name!r} {problem}; unpack it yourself, and give the folder")


@final
class _Meter:
    """Counts unpacked bytes, up to a limit."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._total = 0

    def count(self, size: int) -> None:
        """Raises UserError beyond the limit."""
        self._total += size
        if self._total > self._limit:
            raise UserError(
                f"{self._path} is refused: it unpacks to more than {human_bytes(self._limit)}, "
                f"over {_RATIO} times its own size; if that is no trap, unpack it yourself, and give the folder"
            )


@final
class _Watched:
    """A stream that is metered and remembers what it gave last."""

    def __init__(self, stream: IO[bytes], meter: _Meter) -> None:
        self._stream = stream
        self._meter = meter
        self._end = 0
        self._recent = b""

    def read(self, size: int) -> bytes:
        block = self._stream.read(size)
        self._meter.count(len(block))
        self._end += len(block)
        self._recent = (self._recent + block)[-_KEPT:]
        return block

    def at(self, offset: int, size: int) -> bytes:
        """The bytes at an offset, as far as they were read not long ago."""
        start = offset - (self._end - len(self._recent))
        return self._recent[start : start + size] if start >= 0 else b""
