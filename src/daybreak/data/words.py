"""Words of a text as 64-bit hashes: what filters, near-duplicates and overlaps are judged by.

A word is a run of letters, digits and whatever lies beyond ASCII, but for general punctuation (U+2000 to U+207F), in
lower case. Shape legend: N bytes of text, W words.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import final

import numpy as np
import numpy.typing as npt

from daybreak.data.hashing import Words as Hashes
from daybreak.data.hashing import splitmix64

_BASE = 0x9E3779B97F4A7C15  # odd, so that its powers have inverses
_NEXT_WORD = np.uint64(0xD6E8FEB86659FD93)
_IN_WORDS = np.array([byte >= 0x80 or chr(byte).isalnum() for byte in range(256)])


@final
@dataclass(frozen=True)
class Words:
    """Of one text, in their order.

    Attributes:
        hashes: (W,).
        lengths: in bytes, (W,).
    """

    hashes: Hashes
    lengths: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.hashes)


def words_of(text: str) -> Words:
    """The words of a text, by a polynomial of their bytes modulo 2^64: sums over each word come from prefix sums."""
    bytes_N = np.frombuffer(text.lower().encode(), dtype=np.uint8)
    inside_N = _IN_WORDS[bytes_N]
    _leave_out_punctuation(bytes_N, inside_N)
    edges = np.flatnonzero(np.diff(inside_N, prepend=False, append=False))
    starts_W, ends_W = edges[::2], edges[1::2]
    powers, inverses = _powers(1 << max(12, len(bytes_N).bit_length()))
    sums = np.zeros(len(bytes_N) + 1, dtype=np.uint64)
    np.cumsum((bytes_N.astype(np.uint64) + np.uint64(1)) * powers[: len(bytes_N)], out=sums[1:])
    hashes_W = splitmix64((sums[ends_W] - sums[starts_W]) * inverses[starts_W])
    return Words(hashes_W, ends_W - starts_W)


def shingles(hashes: Hashes, width: int) -> Hashes:
    """Hashes of every `width` words that follow one another; of all words together where there are fewer."""
    if not len(hashes):
        return hashes
    width = min(width, len(hashes))
    count = len(hashes) - width + 1
    combined = hashes[:count].copy()
    for offset in range(1, width):
        combined *= _NEXT_WORD
        combined += hashes[offset : offset + count]
    return splitmix64(combined)


def _leave_out_punctuation(bytes_N: npt.NDArray[np.uint8], inside_N: npt.NDArray[np.bool_]) -> None:
    """U+2000 to U+207F are the bytes E2 80 80 to E2 81 BF."""
    first = np.flatnonzero((bytes_N[:-2] == 0xE2) & ((bytes_N[1:-1] == 0x80) | (bytes_N[1:-1] == 0x81)))
    for offset in range(3):
        inside_N[first + offset] = False


@lru_cache(maxsize=4)
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """Powers of the base, and their inverses, modulo 2^64."""
    base, inverse = np.full(count, _BASE, dtype=np.uint64), np.full(count, pow(_BASE, -1, 1 << 64), dtype=np.uint64)
    base[0] = inverse[0] = 1
    return np.cumprod(base), np.cumprod(inverse)
