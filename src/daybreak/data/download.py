"""Downloads that are verified: a file takes its name only with the right SHA-256."""

import os
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from daybreak.errors import UserError
from daybreak.files import sha256_bytes, sha256_file, write_bytes
from daybreak.progress import say

_ATTEMPTS = 3
_TIMEOUT_SECONDS = 30.0


def cache_folder() -> Path:
    """`DAYBREAK_CACHE`, or `daybreak` in the user's cache folder."""
    chosen = os.environ.get("DAYBREAK_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "daybreak"


def download(url: str, name: str, *, size: int, sha256: str, pause_seconds: float = 1.0) -> Path:
    """The file at `url`, from the cache or the network, kept as `name` in the cache.

    Args:
        size: bytes expected; a longer body is not read to its end.
        sha256: of the whole body, in hexadecimal.
        pause_seconds: before the second attempt; doubled before the third.

    Raises:
        UserError: no attempt brought the expected bytes.
    """
    path = cache_folder() / name
    if path.is_file() and sha256_file(path) == sha256:
        return path
    problem = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            say(f"{url}: {problem}; trying again")
            time.sleep(pause_seconds * 2 ** (attempt - 1))
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
                body = response.read(size + 1)
        except (urllib.error.URLError, OSError, HTTPException) as error:
            problem = f"{getattr(error, 'reason', None) or error}"
            continue
        if len(body) == size and sha256_bytes(body) == sha256:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, body)
            return path
        problem = (
            "its SHA-256 is not the one expected" if len(body) == size else f"{len(body):,} bytes instead of {size:,}"
        )
    raise UserError(
        f"{url} could not be downloaded: {problem}. Fetch it by other means and give daybreak prepare its path"
    )
