"""Words of a text as 64-bit hashes: what filters, near-duplicates and overlaps are judged by.

A word is a run of letters, digits and whatever lies beyond ASCII, but for punctuation (U+2000 to U+207F, U+3000 to
U+303F, U+FF00 to U+FF0F), in lower case. Shape legend: N bytes of text, W words.
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
        lengths: in characters, (W,).
    """

    hashes: Hashes
    lengths: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.hashes)


def words_of(text: str) -> Words:
    """The words of a text, by a polynomial of their bytes modulo 2^64: sums over each word come from prefix sums."""
    bytes_N = np.frombuffer(text.lower().encode(errors="replace"), dtype=np.uint8)
    inside_N = _IN_WORDS[bytes_N]
    _leave_out_punctuation(bytes_N, inside_N)
    edges = np.flatnonzero(np.diff(inside_N, prepend=False, append=False))
    starts_W, ends_W = edges[::2], edges[1::2]
    powers, inverses = _powers(1 << max(16, len(bytes_N).bit_length()))
    sums = np.zeros(len(bytes_N) + 1, dtype=np.uint64)
    np.cumsum((bytes_N.astype(np.uint64) + np.uint64(1)) * powers[: len(bytes_N)], out=sums[1:])
    hashes_W = splitmix64((sums[ends_W] - sums[starts_W]) * inverses[starts_W])
    characters = np.cumsum((bytes_N & 0xC0) != 0x80)  # the bytes that continue one do not count
    lengths_W = characters[ends_W - 1] - characters[starts_W] + 1
    return Words(hashes_W, lengths_W)


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
    """In bytes: E2 80 80 to E2 81 BF, E3 80 80 to E3 80 BF, and EF BC 80 to EF BC 8F."""
    if bytes_N.max(initial=0) < 0xE2:
        return
    first, second, third = bytes_N[:-2], bytes_N[1:-1], bytes_N[2:]
    general = (first == 0xE2) & ((second == 0x80) | (second == 0x81))
    of_east_asia = ((first == 0xE3) & (second == 0x80)) | ((first == 0xEF) & (second == 0xBC) & (third < 0x90))
    places = np.flatnonzero(general | of_east_asia)
    for offset in range(3):
        inside_N[places + offset] = False


@lru_cache(maxsize=2)  # of all short texts, and of a long one
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """Powers of the base, and their inverses, modulo 2^64."""
    base, inverse = np.full(count, _BASE, dtype=np.uint64), np.full(count, pow(_BASE, -1, 1 << 64), dtype=np.uint64)
    base[0] = inverse[0] = 1
    return np.cumprod(base), np.cumprod(inverse)
