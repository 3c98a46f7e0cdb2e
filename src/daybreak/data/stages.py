"""The first stages of preparation, each a function of one task: read, clean, compare, gather.

A task reads files, writes files and returns what is to be known of them; a task that is done again writes the same.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daybreak.data.blocks import Block, BlockWriter, read_block, write_blocks
from daybreak.data.clean import Beginning, Cleaning, cleaned, reason_to_drop
from daybreak.data.deduplicate import (
    FOUND,
    Duplicates,
    Sketched,
    duplicates_of_block,
    find_duplicates,
    keys_of,
    sketches_of,
)
from daybreak.data.documents import Document, Tally
from daybreak.data.dropped import Rejects, added
from daybreak.data.inputs import Input
from daybreak.data.overlap import WIDTH, EvaluationSets
from daybreak.data.tasks import beside
from daybreak.data.tokenizer import Tokenizer
from daybreak.data.words import words_of
from daybreak.files import read_sealed

_SKETCHED_PIECES = 4  # of a document; longer ones are compared by their first four million characters or so
_SKETCHED_AT_ONCE = 256  # documents


@final
@dataclass(frozen=True)
class Read:
    """An input to be read into blocks, of so many bytes, in a folder."""

    input: Input
    block_bytes: int
    out: Path


def read(task: Read) -> dict[str, Any]:
    """Returns the blocks, and what was passed over."""
    shutil.rmtree(task.out, ignore_errors=True)
    task.out.mkdir()
    tally = Tally()
    blocks = [asdict(block) for block in write_blocks(task.input.read(tally), task.out, task.block_bytes)]
    return {"blocks": blocks, "tally": tally.to_json()}


@final
@dataclass(frozen=True)
class Clean:
    """A block to be cleaned into another, and sketched.

    Attributes:
        out: stem of the files to write.
        evaluation: file of runs of words that no document may hold.
        tokenizer: file of the tokenizer; None where `cleaning` does not ask for it.
        keep_rejects: write the documents that are dropped, too.
    """

    block: Block
    out: Path
    cleaning: Cleaning
    duplicates: Duplicates
    evaluation: Path | None
    tokenizer: Path | None
    keep_rejects: bool


def clean(task: Clean) -> dict[str, Any]:
    """Returns the block that is left, and documents and bytes that were dropped, by reason."""
    evaluation = None if task.evaluation is None else _evaluation_sets(task.evaluation)
    count_tokens = None if task.tokenizer is None else _counter(task.tokenizer)
    writer, rejects = BlockWriter(task.out), Rejects(beside(task.out, "rejects") if task.keep_rejects else None)
    dropped: dict[str, list[int]] = {}
    sketched = _Sketches(task.out, task.duplicates)
    for document in read_block(task.block):
        look = _Look(task.cleaning, document.date, evaluation, count_tokens)
        writer.add(document.origin, document.date, look.at(document.pieces))
        if look.reason is None:
            sketched.add(look)
            continue
        size = rejects.add(document.origin, look.reason, writer.last())
        dropped[look.reason] = added(dropped.get(look.reason), (1, size))
        writer.take_back()
    rejects.close()
    sketched.close()
    return {"block": asdict(writer.close()), "dropped": dropped}


@final
class _Sketches:
    """Sketches and keys of a block's documents, made some at a time; nothing where no duplicates are looked for."""

    def __init__(self, stem: Path, duplicates: Duplicates) -> None:
        self._stem, self._duplicates = stem, duplicates
        self._waiting: list[_Look] = []
        self._made: list[npt.NDArray[Any]] = []

    def add(self, look: "_Look") -> None:
        if self._duplicates == "none":
            return
        self._waiting.append(look)
        if len(self._waiting) == _SKETCHED_AT_ONCE:
            self._make()

    def close(self) -> None:
        if self._duplicates == "none":
            return
        self._make()
        sketches = np.concatenate(self._made)
        beside(self._stem, "sketches").write_bytes(sketches.tobytes())
        beside(self._stem, "keys").write_bytes(keys_of(sketches, self._duplicates).tobytes())

    def _make(self) -> None:
        near = self._duplicates == "near"
        words = [np.concatenate(look.words) if near else np.empty(0, dtype=np.uint64) for look in self._waiting]
        self._made.append(sketches_of([look.digest.digest() for look in self._waiting], words))
        self._waiting = []


@final
class _Look:
    """What is learned of a document while its pieces pass.

    Attributes:
        reason: why it is dropped; None if it stays.
        digest: of its text.
        words: of its first pieces, by which it is compared.
    """

    def __init__(
        self,
        cleaning: Cleaning,
        date: str | None,
        evaluation: EvaluationSets | None,
        count_tokens: Callable[[str], int] | None,
    ) -> None:
        self._cleaning, self._date, self._evaluation, self._count_tokens = cleaning, date, evaluation, count_tokens
        self.reason: str | None = None
        self.digest = hashlib.blake2b(digest_size=16)
        self.words: list[npt.NDArray[np.uint64]] = []
        self._before = np.empty(0, dtype=np.uint64)

    def at(self, pieces: Iterator[str]) -> Iterator[str]:
        """The pieces, cleaned."""
        for number, piece in enumerate(cleaned(piece, self._cleaning) for piece in pieces):
            words = words_of(piece)
            if number == 0:
                beginning = Beginning.of(piece, words)
                self.reason = reason_to_drop(beginning, self._date, self._cleaning, self._count_tokens)
            if self.reason is None and self._evaluation is not None:
                run_on = np.concatenate([self._before, words.hashes])  # a run may span two pieces
                if self._evaluation.overlap(run_on):
                    self.reason = "evaluation set"
                self._before = run_on[-(WIDTH - 1) :]
            if number < _SKETCHED_PIECES:
                self.words.append(words.hashes)
            self.digest.update(piece.encode())
            yield piece


@final
@dataclass(frozen=True)
class Compare:
    """A range of keys to be looked through for duplicates.

    Attributes:
        blocks: file that lists the stems of blocks, and the number of each one's first document.
        part, parts: which of how many equal ranges.
    """

    blocks: Path
    part: int
    parts: int
    out: Path


def compare(task: Compare) -> dict[str, Any]:
    """Returns how many were found, and how many documents were left with candidates they were not compared with."""
    blocks = [
        Sketched(beside(Path(stem), "sketches"), beside(Path(stem), "keys"), first)
        for stem, first in read_sealed(task.blocks)["blocks"]
    ]
    found, left = find_duplicates(blocks, task.part, task.parts)
    task.out.write_bytes(found.tobytes())
    return {"found": len(found), "left": left}


@final
@dataclass(frozen=True)
class Gather:
    """The duplicates of a range of documents, from those of every range of keys.

    Attributes:
        found: files of the latter.
        first, last: numbers of the first document, and of the first behind the last.
    """

    found: tuple[Path, ...]
    first: int
    last: int
    out: Path


def gather(task: Gather) -> dict[str, Any]:
    """Returns how many there are."""
    opened = [_open_found(path) for path in task.found]
    found = duplicates_of_block(opened, task.first, task.last - task.first)
    task.out.write_bytes(found.tobytes())
    return {"found": len(found)}


def without_duplicates(block: Block, first: int, found: Path | None) -> Iterator[tuple[Document, str | None]]:
    """The documents of a block, and of those that are duplicates which kind; pieces must be read before the next.

    Args:
        first: number of its first document among all that were compared.
        found: file of the duplicates.
    """
    kinds = {
        int(each["document"]) - first: "exact duplicate" if each["exact"] else "near duplicate"
        for each in duplicates(block, first, found)
    }
    for index, document in enumerate(read_block(block)):
        yield document, kinds.get(index)


def duplicates(block: Block, first: int, found: Path | None) -> npt.NDArray[Any]:
    """What was found of a block."""
    return duplicates_of_block([] if found is None else [_open_found(found)], first, block.documents)


def _open_found(path: Path) -> npt.NDArray[Any]:
    return np.memmap(path, dtype=FOUND, mode="r") if path.stat().st_size else np.empty(0, dtype=FOUND)


@lru_cache(maxsize=1)
def _counter(tokenizer: Path) -> Callable[[str], int]:
    """Loaded once for each worker, as the next."""
    loaded = Tokenizer.load(tokenizer)
    return lambda text: len(loaded.encode(text))


@lru_cache(maxsize=1)
def _evaluation_sets(path: Path) -> EvaluationSets:
    return EvaluationSets(np.fromfile(path, dtype="<u8"))
