"""Overlap with evaluation sets: a document that shares a run of 13 words with one is not trained on.

Thirteen words are GPT-3's measure (Brown et al. 2020, appendix C).
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import final

import numpy as np

from daybreak.data.compression import open_bytes, suffixes
from daybreak.data.hashing import Words as Hashes
from daybreak.data.inputs import read_documents
from daybreak.data.words import shingles, words_of
from daybreak.errors import UserError

WIDTH = 13
_TABLE_BITS = 24  # of a first look, which most runs of words do not pass


@final
class EvaluationSets:
    """The runs of 13 words of some texts."""

    def __init__(self, runs: Hashes) -> None:
        self.runs = np.unique(runs)
        self._table = np.zeros(1 << _TABLE_BITS, dtype=np.bool_)
        self._table[self._places(self.runs)] = True

    def overlap(self, words: Hashes) -> bool:
        """Whether a text of these words holds one of the runs."""
        if len(words) < WIDTH or not len(self.runs):
            return False
        runs = shingles(words, WIDTH)
        likely = runs[self._table[self._places(runs)]]
        found = np.searchsorted(self.runs, likely)
        return bool((self.runs[np.minimum(found, len(self.runs) - 1)] == likely).any())

    @staticmethod
    def _places(runs: Hashes) -> Hashes:
        return runs >> np.uint64(64 - _TABLE_BITS)


def runs_of(files: Iterable[Path]) -> Hashes:
    """The runs of 13 words in files of text or JSONL; in JSONL, of every string in a line.

    Texts of fewer words have none: they are too short to tell.
    """
    found = [np.empty(0, dtype=np.uint64)]
    for path in files:
        for text in _texts(path):
            words = words_of(text)
            if len(words) >= WIDTH:
                found.append(shingles(words.hashes, WIDTH))
    return np.unique(np.concatenate(found))


def _texts(path: Path) -> Iterator[str]:
    if suffixes(path)[0] not in (".jsonl", ".ndjson"):
        for document in read_documents([path]):
            yield from document.pieces
        return
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                yield from _strings(json.loads(line)) if line.strip() else ()
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}:{number}: not JSON ({error})") from None


def _strings(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for each in value:
                yield from _strings(each)
        case dict():
            yield from _strings(list(value.values()))
