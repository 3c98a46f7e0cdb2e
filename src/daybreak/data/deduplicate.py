"""Duplicates: of documents that are alike, the first stays.

Exact ones have the same text; near ones an estimated Jaccard similarity of their runs of five words of 0.7 or more.
It is estimated by MinHash (Broder 1997), as rensa makes it; pairs to compare are those that agree in all rows of a
band (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, section 3.4).

Everything lies in files. Each block of documents leaves a sketch of every document, and its keys: one for the exact
text, one for each band, sorted. A range of keys is looked through at a time: documents with the same key are compared,
and those that are like an earlier one noted. Shape legend: D documents, K keys of each, P pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import numpy.typing as npt

from daybreak.data.hashing import Words as Hashes
from daybreak.data.hashing import splitmix64
from daybreak.data.words import shingles
from daybreak.errors import UserError

Duplicates = Literal["none", "exact", "near"]
BANDS, ROWS = 20, 6  # a pair of similarity 0.8 meets in one with probability 0.998, one of 0.3 with 0.014
PERMUTATIONS = BANDS * ROWS
SIMILAR = 0.7  # by an estimate whose standard error is 0.04
SHINGLE = 5  # words
_SEED = 1
_ROUNDS = 16  # representatives that the documents of one key are compared with
_PAIRS_AT_ONCE = 1 << 16

SKETCH = np.dtype([("digest", "<u8", 2), ("signature", "<u4", PERMUTATIONS)])
KEY = np.dtype([("key", "<u8"), ("document", "<u4")])  # the document's number in its block
FOUND = np.dtype([("document", "<u8"), ("original", "<u8"), ("exact", "?")])


def sketches_of(digests: Sequence[bytes], words: Sequence[Hashes]) -> npt.NDArray[Any]:
    """Of D documents, (D,) of SKETCH.

    Args:
        digests: 16 bytes that stand for the text of each.
        words: hashes of the words of each; empty arrays where only exact duplicates are looked for.

    Raises:
        UserError: rensa is not installed.
    """
    found = np.zeros(len(digests), dtype=SKETCH)
    found["digest"] = np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)
    runs = [shingles(each, SHINGLE) for each in words]
    offsets = np.cumsum([0, *map(len, runs)], dtype=np.uint64)
    if offsets[-1]:
        matrix = _rensa().RMinHash.digest_matrix_from_flat_token_hashes(
            np.concatenate(runs), offsets, PERMUTATIONS, _SEED
        )
        found["signature"] = np.asarray(matrix.to_rows(), dtype="<u4")
        found["signature"][np.diff(offsets) == 0] = 0
    return found


def keys_of(found: npt.NDArray[Any], duplicates: Duplicates) -> npt.NDArray[Any]:
    """The keys of sketches, sorted: (D * K,) of KEY. Documents without words have no bands."""
    digests = splitmix64(found["digest"][:, 0] ^ splitmix64(found["digest"][:, 1]))
    columns, documents = [digests], [np.arange(len(found))]
    if duplicates == "near":
        worded = np.flatnonzero(found["signature"].any(axis=1))
        for band in range(BANDS):
            rows = found["signature"][worded, band * ROWS : (band + 1) * ROWS].astype(np.uint64)
            key = np.full(len(worded), splitmix64(band), dtype=np.uint64)
            for row in range(ROWS):
                key = splitmix64(key ^ rows[:, row])
            columns.append(key)
            documents.append(worded)
    keys = np.empty(sum(map(len, columns)), dtype=KEY)
    keys["key"], keys["document"] = np.concatenate(columns), np.concatenate(documents)
    return np.sort(keys, order=("key", "document"))


@final
@dataclass(frozen=True)
class Sketched:
    """A block's files of sketches and keys; `first` is the number of its first document among all."""

    sketches: Path
    keys: Path
    first: int


def find_duplicates(blocks: Sequence[Sketched], part: int, parts: int) -> tuple[npt.NDArray[Any], int]:
    """Documents that are like an earlier one, by the keys of one of so many equal ranges: FOUND, sorted by document.

    With it, of how many documents not all candidates were looked at, since more than 16 with their key are unlike.
    """
    low, high = (part << 64) // parts, ((part + 1) << 64) // parts
    slices = [_numbered(block, low, high) for block in blocks]
    keys = np.concatenate([key for key, _ in slices])
    documents = np.concatenate([document for _, document in slices])
    order = np.lexsort((documents, keys))
    keys, documents = keys[order], documents[order]
    alike = _shared(keys)
    groups, documents = np.unique(keys[alike], return_inverse=True)[1], documents[alike]
    rows = _Rows(blocks)
    found = [np.empty(0, dtype=FOUND)]
    for _ in range(_ROUNDS):
        if len(groups) < 2:
            break
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        first = np.repeat(documents[starts], np.diff(starts, append=len(groups)))
        pairs = np.flatnonzero(first != documents)
        similar, exact = rows.compare(first[pairs], documents[pairs])
        matches = np.zeros(similar.sum(), dtype=FOUND)
        matches["document"], matches["original"] = documents[pairs][similar], first[pairs][similar]
        matches["exact"] = exact[similar]
        found.append(matches)
        # What is like the first of its group is settled; the others have the next of them as their first.
        unsettled = pairs[~similar]
        groups, documents = groups[unsettled], documents[unsettled]
        several = _shared(groups)
        groups, documents = groups[several], documents[several]
    return _once(np.concatenate(found)), len(documents)


def _once(found: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Each document with its earliest original; exact where it is a copy of any."""
    found = found[np.lexsort((found["original"], ~found["exact"], found["document"]))]
    once: npt.NDArray[Any] = found[np.diff(found["document"], prepend=np.uint64(2**64 - 1)) != 0]
    return once


def duplicates_of_block(found: Sequence[npt.NDArray[Any]], first: int, count: int) -> npt.NDArray[Any]:
    """Of all that was found, what concerns documents `first` to `first + count`: FOUND, each document once."""
    parts = [np.empty(0, dtype=FOUND)]
    for each in found:
        low, high = np.searchsorted(each["document"], np.array([first, first + count], dtype=np.uint64))
        parts.append(np.asarray(each[low:high]))
    return _once(np.concatenate(parts))


def _shared(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which of sorted values stand beside an equal one."""
    same = values[1:] == values[:-1]
    shared: npt.NDArray[np.bool_] = np.append(same, False) | np.append(False, same)
    return shared if len(values) else np.empty(0, dtype=np.bool_)


def _numbered(block: Sketched, low: int, high: int) -> tuple[Hashes, Hashes]:
    """The keys of a block in [low, high), and the numbers of their documents among all."""
    keys = np.memmap(block.keys, dtype=KEY, mode="r") if block.keys.stat().st_size else np.empty(0, dtype=KEY)
    start = np.searchsorted(keys["key"], np.uint64(low))
    stop = np.searchsorted(keys["key"], np.uint64(high)) if high < 1 << 64 else len(keys)
    part = keys[start:stop]
    return np.asarray(part["key"]), part["document"].astype(np.uint64) + np.uint64(block.first)


@final
class _Rows:
    """Sketches of documents by their numbers, wherever they lie."""

    def __init__(self, blocks: Sequence[Sketched]) -> None:
        self._blocks = blocks
        self._firsts = np.array([block.first for block in blocks], dtype=np.uint64)
        self._opened: dict[int, npt.NDArray[Any]] = {}

    def compare(self, ones: Hashes, others: Hashes) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Of P pairs, which are alike, and which are the same: (P,) each."""
        similar, exact = np.zeros(len(ones), dtype=np.bool_), np.zeros(len(ones), dtype=np.bool_)
        for start in range(0, len(ones), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            one, other = self._of(ones[part]), self._of(others[part])
            exact[part] = (one["digest"] == other["digest"]).all(axis=1)
            near = (one["signature"] == other["signature"]).mean(axis=1) >= SIMILAR
            similar[part] = exact[part] | (near & one["signature"].any(axis=1))
        return similar, exact

    def _of(self, documents: Hashes) -> npt.NDArray[Any]:
        found = np.empty(len(documents), dtype=SKETCH)
        homes = np.searchsorted(self._firsts, documents, side="right") - 1
        for home in np.unique(homes):
            here = homes == home
            block = self._blocks[home]
            if home not in self._opened:
                self._opened[home] = np.memmap(block.sketches, dtype=SKETCH, mode="r")
            found[here] = self._opened[home][(documents[here] - np.uint64(block.first)).astype(np.int64)]
        return found


def _rensa() -> Any:
    try:
        import rensa
    except ImportError:
        raise UserError("finding near-duplicates needs the package rensa: pip install 'daybreak[data]'") from None
    return rensa
