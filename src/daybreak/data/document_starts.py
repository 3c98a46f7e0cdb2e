"""Where the documents of a split lie in its stream, and how long they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daybreak.data.shards import Corpus, SplitName, documents_file
from daybreak.errors import UserError

_SAMPLE = 1_000_000  # documents: eight megabytes
_AT_ONCE = 1_000  # that lie one behind the other
_PERCENTS = (0, 10, 50, 90, 99, 100)


@final
class DocumentStarts:
    """The places of a split's documents, memory-mapped.

    A document reaches to the start of the next one, over shards if need be, its end-of-text included.
    """

    def __init__(self, corpus: Corpus, split: SplitName) -> None:
        totals = corpus.split(split)
        self._tokens = totals.tokens
        self._parts: list[npt.NDArray[Any]] = [
            np.memmap(corpus.path / documents_file(shard.file), dtype="<u8", mode="r")
            if shard.documents
            else np.empty(0, dtype="<u8")
            for shard in totals.shards
        ]
        self._ends = np.cumsum([shard.documents for shard in totals.shards], dtype=np.int64)
        self._begins = np.cumsum([0, *(shard.tokens for shard in totals.shards)], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, first: int, stop: int) -> npt.NDArray[np.int64]:
        """Where documents [first, stop) start, and where the last of them ends: (stop - first + 1,)."""
        if not 0 <= first < stop <= len(self):
            raise IndexError(f"documents {first} to {stop} of {len(self)}")
        places = [self._starts(first, min(stop + 1, len(self)))]
        if stop == len(self):
            places.append(np.asarray([self._tokens]))
        return np.concatenate(places)

    def _starts(self, first: int, stop: int) -> npt.NDArray[np.int64]:
        found = []
        part = int(np.searchsorted(self._ends, first, side="right"))
        while first < stop:
            begin = int(self._ends[part]) - len(self._parts[part])
            end = min(stop, int(self._ends[part]))
            found.append(self._parts[part][first - begin : end - begin].astype(np.int64) + self._begins[part])
            first, part = end, part + 1
        return np.concatenate(found)


@final
@dataclass(frozen=True)
class Lengths:
    """Lengths of documents in tokens, end-of-text included.

    Attributes:
        documents: that were measured, evenly spread over the split.
        quantiles: by percent, each the length of some document.
        histogram: documents of at least so many tokens and fewer than twice as many.
        tiny: share of documents with at most one token beside their end-of-text.
    """

    documents: int
    mean: float
    quantiles: Mapping[int, int]
    histogram: Mapping[int, int]
    tiny: float


def measure_lengths(starts: DocumentStarts) -> Lengths | None:
    """Of all documents, or of a million evenly spread; None where there are none.

    Raises:
        UserError: the offsets do not rise.
    """
    if not len(starts):
        return None
    lengths = np.concatenate(
        [np.diff(starts.read(first, stop)) for first, stop in spread(len(starts), _SAMPLE, _AT_ONCE)]
    )
    if int(lengths.min()) < 1:
        raise UserError("documents do not start one behind the other; daybreak verify tells which file is damaged")
    found = np.quantile(lengths, [percent / 100 for percent in _PERCENTS], method="inverted_cdf")
    sizes, documents = np.unique(np.floor(np.log2(lengths)).astype(np.int64), return_counts=True)
    return Lengths(
        documents=len(lengths),
        mean=float(lengths.mean()),
        quantiles={percent: int(length) for percent, length in zip(_PERCENTS, found, strict=True)},
        histogram={1 << int(size): int(count) for size, count in zip(sizes, documents, strict=True)},
        tiny=float((lengths <= 2).mean()),
    )


def spread(total: int, sample: int, at_once: int) -> list[tuple[int, int]]:
    """Ranges of `at_once` numbers below `total`: all of them, or as many as make `sample`, evenly spread."""
    if total <= sample:
        return [(first, min(first + at_once, total)) for first in range(0, total, at_once)]
    pieces = sample // at_once
    return [(first, first + at_once) for first in (number * total // pieces for number in range(pieces))]
