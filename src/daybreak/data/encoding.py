"""The last stages of preparation: documents -> tokens, block by block, -> shards."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, final

import numpy as np
import numpy.typing as npt

from daybreak.data.blocks import Block
from daybreak.data.documents import Document
from daybreak.data.dropped import Rejects, added
from daybreak.data.hashing import splitmix64
from daybreak.data.shards import Shard, documents_file, token_dtype
from daybreak.data.stages import without_duplicates
from daybreak.data.tasks import beside
from daybreak.data.tokenizer import Tokenizer
from daybreak.errors import UserError
from daybreak.files import sha256_file

_COPIED_AT_ONCE = 1 << 22  # bytes


@final
@dataclass(frozen=True)
class SplitRule:
    """Which documents are kept for validation: those that a hash of their number picks.

    Attributes:
        share: of the documents.
        lowest, highest: numbers of the documents whose hashes are extreme: one of either split there always is.
        boundary: where there is one document only, the character from which on it is kept for validation.
    """

    share: float
    lowest: int
    highest: int
    boundary: int | None

    def divide(self, document: Document, number: int) -> Iterator[tuple[str, bool, str]]:
        """Its text, piece by piece: the split, whether the document begins there, the piece."""
        if self.boundary is None:
            picked = splitmix64(number) < self.share * 2**64
            validation = (picked or number == self.lowest) and number != self.highest
            for index, text in enumerate(document.pieces):
                yield "validation" if validation else "train", index == 0, text
            return
        position = 0
        for text in document.pieces:
            cut = max(0, self.boundary - position)
            if text[:cut]:
                yield "train", position == 0, text[:cut]
            if text[cut:]:
                yield "validation", position <= self.boundary, text[cut:]
            position += len(text)


@final
@dataclass(frozen=True)
class Tokenise:
    """A block to be encoded.

    Attributes:
        first: number of its first document among all that were compared.
        number: of its first document among all that stay.
        found: file of the duplicates; None where none were looked for.
        out: stem of the files to write.
        keep_rejects: write the documents that are dropped, too.
    """

    block: Block
    first: int
    number: int
    found: Path | None
    rule: SplitRule
    tokenizer: Path
    out: Path
    keep_rejects: bool


def tokenise(task: Tokenise) -> dict[str, Any]:
    """Returns tokens, documents and bytes of text of each split, and what was dropped."""
    tokenizer = _loaded(task.tokenizer)
    files = {name: _TokenFile(task.out, name, tokenizer) for name in ("train", "validation")}
    rejects = Rejects(beside(task.out, "rejects") if task.keep_rejects else None)
    dropped: dict[str, list[int]] = {}
    number = task.number
    for document, reason in without_duplicates(task.block, task.first, task.found):
        if reason is not None:
            size = rejects.add(document.origin, reason, document.pieces)
            dropped[reason] = added(dropped.get(reason), (1, size))
            continue
        for split, begins, text in task.rule.divide(document, number):
            if begins:
                files[split].start_document()
            files[split].write(text)
        number += 1
    rejects.close()
    return {"splits": {name: file.close() for name, file in files.items()}, "dropped": dropped}


@final
@dataclass(frozen=True)
class Assemble:
    """A shard to be put together from a range of tokens of each of some blocks.

    Attributes:
        slices: stems of blocks' tokens, and the range of each.
        vocab_size: of the tokenizer.
    """

    split: str
    slices: tuple[tuple[Path, int, int], ...]
    vocab_size: int
    out: Path


def assemble(task: Assemble) -> dict[str, Any]:
    """Returns the shard as the manifest describes it."""
    dtype = token_dtype(task.vocab_size)
    starts: list[npt.NDArray[np.uint64]] = []
    written = 0
    with task.out.open("wb") as out:
        for stem, low, high in task.slices:
            with beside(stem, f"{task.split}.tokens").open("rb") as tokens:
                tokens.seek(low * dtype.itemsize)
                _copy(tokens, out, (high - low) * dtype.itemsize)
            of_block = np.fromfile(beside(stem, f"{task.split}.starts"), dtype="<u8")
            inside = of_block[np.searchsorted(of_block, low) : np.searchsorted(of_block, high)]
            starts.append(inside - np.uint64(low) + np.uint64(written))
            written += high - low
    documents = task.out.with_name(documents_file(task.out.name))
    all_starts = np.concatenate(starts)
    documents.write_bytes(all_starts.astype("<u8").tobytes())
    return vars(Shard(task.out.name, written, len(all_starts), sha256_file(task.out), sha256_file(documents)))


@final
class _TokenFile:
    """The tokens of a block's documents of one split, each document behind its end-of-text."""

    def __init__(self, stem: Path, split: str, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._dtype = tokenizer, token_dtype(tokenizer.vocab_size)
        self._file = beside(stem, f"{split}.tokens").open("wb")
        self._starts_file = beside(stem, f"{split}.starts")
        self._starts: list[int] = []
        self._tokens = self._bytes = 0
        self._end_of_text = np.asarray([tokenizer.end_of_text], dtype=self._dtype)

    def start_document(self) -> None:
        self._starts.append(self._tokens)
        self._append(self._end_of_text)

    def write(self, text: str) -> None:
        """Append text of the document that was begun last."""
        self._append(self._tokenizer.encode(text))
        self._bytes += len(text.encode())

    def close(self) -> dict[str, int]:
        self._file.close()
        self._starts_file.write_bytes(np.asarray(self._starts, dtype="<u8").tobytes())
        return {"tokens": self._tokens, "documents": len(self._starts), "bytes": self._bytes}

    def _append(self, tokens: npt.NDArray[Any]) -> None:
        self._file.write(tokens.astype(self._dtype, copy=False).data)
        self._tokens += len(tokens)


@lru_cache(maxsize=1)
def _loaded(path: Path) -> Tokenizer:
    """Once for each worker: it takes as long as a megabyte of text."""
    return Tokenizer.load(path)


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> None:
    while size:
        block = source.read(min(size, _COPIED_AT_ONCE))
        if not block:
            raise UserError(f"{source.name} is shorter than it was; the same command makes it anew")
        target.write(block)
        size -= len(block)
