"""Files that are whole or absent: atomic writes, hashes, locks."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daybreak.errors import UserError

_BLOCK = 1 << 20


def sha256_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_text(path: Path) -> None:
    """Raises UserError for a path whose name is not UTF-8: neither recipes nor messages could hold it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"{str(path)!r} has a name that is not valid UTF-8; rename it, or choose another") from None


def file_problem(path: Path, sha256: str, size: int | None = None) -> str | None:
    """What is wrong with a file that should have this hash, and this many bytes where known; None if nothing is."""
    if not path.is_file():
        return f"{path} is missing" + (f": it leads to {path.readlink()}" if path.is_symlink() else "")
    if size is not None and path.stat().st_size != size:
        return f"{path} is damaged: {path.stat().st_size:,} bytes instead of {size:,}"
    if sha256_file(path) != sha256:
        return f"{path} is damaged: its SHA-256 is not the manifest's"
    return None


def canonical_json(value: Any) -> bytes:
    """One byte string for one value: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def read_json(path: Path) -> dict[str, Any]:
    """Raises UserError if the file is missing or does not hold a JSON object."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} does not exist") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: it is not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: it does not hold a JSON object")
    return value


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented for people, atomically."""
    write_bytes(path, json.dumps(value, indent=2, allow_nan=False).encode() + b"\n")


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object with a seal, the SHA-256 of its content, by which `read_sealed` trusts it."""
    write_bytes(path, _sealed(value))


def read_sealed(path: Path) -> dict[str, Any]:
    """Read back what `write_sealed` wrote, without its seal.

    Raises:
        UserError: the file is missing, or a single byte of it is not as it was written.
    """
    value = read_json(path)
    value.pop("seal", None)
    try:
        expected = _sealed(value)
    except (ValueError, RecursionError):  # NaN or a depth that can be read but is never written
        expected = b""
    if path.read_bytes() != expected:
        raise UserError(f"{path} is damaged: its content does not fit its seal")
    return value


def _sealed(value: dict[str, Any]) -> bytes:
    seal = sha256_bytes(canonical_json(value))
    return json.dumps({**value, "seal": seal}, indent=2, allow_nan=False).encode() + b"\n"


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, never a part.

    A link is followed; what is there but is no file, as a device or a pipe, is written into.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        with space_errors(path), path.open("wb") as special:
            special.write(content)
        return
    partial = path.with_name(f".{path.name}.partial")
    with space_errors(path):
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)  # a full disk has other uses for it
            raise
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make a folder and all in it durable."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            sync_file(path)
        else:
            sync_folder(path)
    sync_folder(folder)


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """Yield a folder aside to fill; it takes the name `final` only once all of it is on disk.

    Raises:
        UserError: another living process is filling it, or something lies at `final` by then.
    """
    aside = final.with_name(f".{final.name}.partial")
    with space_errors(final), _owned(aside, final):
        try:
            _empty(aside)
            yield aside
            sync_tree(aside)
            take_name(aside, final)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise


def let_read(path: Path) -> None:
    """Give a file that a library made for its owner alone the mode that other new files have in its folder."""
    path.chmod(path.parent.stat().st_mode & 0o666)


def take_name(aside: Path, final: Path) -> None:
    """Give a folder that is whole its name.

    Raises:
        UserError: something lies there by now.
    """
    try:
        aside.rename(final)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise UserError(f"{final} exists by now; choose another place") from error
        raise
    sync_folder(final.parent)


@contextmanager
def _owned(aside: Path, final: Path) -> Iterator[None]:
    """Own a folder that is made for it; the lock ends with the process, however it ends."""
    aside.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(aside, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            gone = not aside.exists() or not os.path.samestat(os.fstat(descriptor), aside.stat())
        except BlockingIOError:
            gone = True
        if gone:
            raise UserError(f"{final} is being written by another process; wait for it, or choose another place")
        yield
    finally:
        os.close(descriptor)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def require_space(folder: Path, needed: int) -> None:
    """Raises UserError if the disk that holds `folder` has fewer than `needed` bytes free."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"no space for {folder}: {needed / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free; "
            "free some space or choose another folder"
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Own `folder` while inside. The lock ends with the process, however it ends.

    Raises:
        UserError: another living process owns it.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, where a folder should be; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / ".lock"
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise UserError(
                f"{folder} is in use by process {owner}; wait for it, stop it, or choose another --out"
            ) from None
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            if list(folder.iterdir()) == [lock]:  # nothing came of it: leave no trace
                lock.unlink()
                folder.rmdir()


def sync_file(path: Path) -> None:
    """Make a file durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def space_errors(path: Path) -> Iterator[None]:
    """Turn a full disk into a UserError that names what was to be written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError(f"no space left to write {path}; free some space or choose another folder") from error
        raise
