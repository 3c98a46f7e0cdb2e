"""Downloads that are verified: a file takes its name only with the right SHA-256."""

import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from http.client import HTTPException, IncompleteRead
from pathlib import Path, PurePosixPath
from typing import IO, Any, final
from urllib.parse import parse_qs, unquote, urlsplit

from daybreak.errors import UserError
from daybreak.files import locked, require_space, sha256_file, sync_folder
from daybreak.progress import progress, say

_ATTEMPTS = 3
_TIMEOUT_SECONDS = 30.0
_BLOCK = 1 << 18


def cache_folder() -> Path:
    """`DAYBREAK_CACHE`, or `daybreak` in the user's cache folder."""
    chosen = os.environ.get("DAYBREAK_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "daybreak"


def download(url: str, name: str, *, size: int, sha256: str, pause_seconds: float = 1.0) -> Path:
    """The file at `url`, from the cache or the network, kept as `name` in the cache.

    What came before a break is kept aside and gone on from, now or by the next call.

    Args:
        size: bytes expected; a longer body is not read to its end.
        sha256: of the whole body, in hexadecimal.
        pause_seconds: before the second attempt; doubled before the next.

    Raises:
        UserError: three attempts in a row brought nothing new or not the expected bytes; no space.
    """
    path = cache_folder() / name
    if path.is_file() and sha256_file(path) == sha256:
        return path
    aside = path.with_name(f".{name}.partial")
    with locked(aside):
        part = aside / "part"
        require_space(aside, size - _size(part))
        problem = _try(url, part, name, size, sha256, pause_seconds)
        if problem is None:
            part.replace(path)
            sync_folder(path.parent)
    if problem is not None:
        raise UserError(
            f"{url} could not be downloaded: {problem}. Fetch it by other means and give daybreak prepare its path"
        )
    return path


def download_stated(source: str) -> tuple[Path, str]:
    """The file at a URL that states what it must be, and its SHA-256: `https://…#sha256=HEX&size=BYTES`.

    Raises:
        UserError: it does not state both, or could not be downloaded.
    """
    try:
        parts = urlsplit(source)
    except ValueError as error:
        raise UserError(f"{source} is no URL: {error}") from None
    if not source.isascii():
        raise UserError(f"{source} has characters that a URL must spell as %C3%A9 and the like")
    stated = {key: values[0] for key, values in parse_qs(parts.fragment).items()}
    sha256, size = stated.get("sha256", "").lower(), stated.get("size", "")
    if not re.fullmatch("[0-9a-f]{64}", sha256) or not re.fullmatch("[1-9][0-9]{0,17}", size):
        raise UserError(
            f"{source} does not state what it must be: add #sha256=HEX&size=BYTES, as sha256sum FILE "
            "and wc -c FILE print them of the file you expect"
        )
    name = re.sub(r"[^\w.-]", "_", PurePosixPath(unquote(parts.path)).name)
    path = download(source.partition("#")[0], f"{sha256[:16]}-{name}", size=int(size), sha256=sha256)
    return path, sha256


def _try(url: str, part: Path, name: str, size: int, sha256: str, pause_seconds: float) -> str | None:
    """Fill `part`; what is wrong with the last attempt, if it is not the file."""
    failures = most = 0
    while True:
        problem = None
        if _size(part) < size:
            problem = _fetch(url, part, name, size)
        have = _size(part)
        if problem is None and have != size:
            problem = f"{have:,} bytes instead of {size:,}"
        elif problem is None and sha256_file(part) != sha256:
            problem = "its SHA-256 is not the one expected"
        if problem is None:
            return None
        if have >= size:
            part.unlink()
        failures = 1 if most < have < size else failures + 1
        most = max(most, have)
        if failures == _ATTEMPTS:
            return problem
        say(f"{url}: {problem}; trying again")
        time.sleep(pause_seconds * 2 ** (failures - 1))


def _fetch(url: str, part: Path, name: str, size: int) -> str | None:
    """Go on from what `part` holds, or begin anew where the server does; what broke, if something did."""
    have = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.build_opener(_WebOnly).open(request, timeout=_TIMEOUT_SECONDS) as response:
            if have and not _continues(response, have, size):
                have = 0
                if response.status == 206:
                    part.unlink()
                    return "the server sent another part than the one asked for"
            with part.open("ab" if have else "wb") as file, progress(f"downloading {name}", size, "B") as advance:
                advance(have)
                _copy(response, file, size + 1 - have, advance)
                file.flush()
                os.fsync(file.fileno())
    except IncompleteRead:
        return None  # the caller sees what is missing
    except (urllib.error.URLError, OSError, HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code == 416:
            part.unlink(missing_ok=True)  # the part does not fit the file there
        return f"{getattr(error, 'reason', None) or error}"
    return None


def _continues(response: Any, have: int, size: int) -> bool:
    """Whether an answer holds the file from byte `have` on."""
    said = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    return response.status == 206 and said is not None and int(said[1]) == have and said[2] in ("*", str(size))


def _copy(source: IO[bytes], target: IO[bytes], most: int, advance: Callable[[int], None]) -> None:
    while most > 0 and (block := source.read(min(_BLOCK, most))):
        target.write(block)
        advance(len(block))
        most -= len(block)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@final
class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.URLError(f"it redirects to {newurl}, which is not http or https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
