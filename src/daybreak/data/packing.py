"""Packing to documents: rows of whole documents, of which only those longer than a row are cut.

A document longer than a row is cut into pieces of a row's length, the last one shorter. Pieces are packed by best-fit
decreasing (Ding et al. 2024, "Fewer Truncations Improve Language Modeling", arXiv 2404.10830), some documents of a
shard at a time, so that memory does not grow with the corpus. Which tokens are one document can be seen in a row: each
begins with end-of-text, the last piece of a cut one stands behind an end-of-text of padding, and more of them fill up
the row.

    CACHE/packing/CORPUS-SPLIT-WINDOW/     CORPUS: the corpus's identity
      header.json       what it is an index of, counts, SHA-256 of the other files; sealed
      pieces.bin        of each piece: its start in the stream (uint64), its length, its column in its row (uint32)
      rows.bin          the first piece of each row, then how many pieces there are (uint64)
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daybreak.data.best_fit import Numbers, best_fit_decreasing
from daybreak.data.download import cache_folder
from daybreak.data.hashing import Words
from daybreak.data.shards import Corpus, Split, SplitName, TokenStream, documents_file
from daybreak.data.windows import IGNORED, WindowRows, Windows
from daybreak.errors import UserError
from daybreak.files import file_problem, read_sealed, require_space, sha256_file, whole_folder, write_sealed
from daybreak.progress import progress, say

_FORMAT = 1
_PORTION = 1 << 18  # documents packed together: of web pages some 250 million tokens, in some 50 MB
_PIECE = np.dtype([("start", "<u8"), ("length", "<u4"), ("column", "<u4")])
_ROW = np.dtype("<u8")


@final
@dataclass(frozen=True)
class Packing:
    """What became of a split's documents.

    Attributes:
        cut: how many of them are longer than a row.
        tokens: of the split; each is an input of one row.
    """

    documents: int
    cut: int
    tokens: int
    pieces: int
    rows: int
    window: int

    @property
    def padding(self) -> int:
        """Tokens of the rows that are none of the split's."""
        return self.rows * self.window - self.tokens

    def __str__(self) -> str:
        return (
            f"{self.documents:,} documents in {self.rows:,} rows of {self.window:,} tokens: {self.cut:,} of them "
            f"({self.cut / self.documents:.1%}) are longer than a row and cut, {self.padding:,} tokens "
            f"({self.padding / (self.rows * self.window):.2%}) are padding"
        )


@final
class DocumentRows(Windows):
    """Rows of documents, one behind the other, filled up with end-of-text. Make one with `document_rows`.

    A target is its input's successor in the stream, behind the last token end-of-text. Padding has none.
    """

    def __init__(self, stream: TokenStream, end_of_text: int, folder: Path, packing: Packing) -> None:
        self.packing, self.window = packing, packing.window
        self._stream, self._end_of_text = stream, end_of_text
        self._pieces = np.memmap(folder / "pieces.bin", dtype=_PIECE, mode="r")
        self._rows = np.memmap(folder / "rows.bin", dtype=_ROW, mode="r")

    def __len__(self) -> int:
        return self.packing.rows

    def read(self, numbers: Words) -> WindowRows:
        inputs = np.full((len(numbers), self.window), self._end_of_text, dtype=np.int64)
        targets = np.full_like(inputs, IGNORED)
        for row, number in enumerate(numbers.tolist()):
            for start, length, column in self._pieces[self._rows[number] : self._rows[number + 1]].tolist():
                tokens = self._with_successor(start, start + length)
                inputs[row, column : column + length] = tokens[:-1]
                targets[row, column : column + length] = tokens[1:]
        return WindowRows(inputs, targets)

    def _with_successor(self, start: int, stop: int) -> Numbers:
        if stop < len(self._stream):
            return self._stream.read(start, stop + 1)
        return np.append(self._stream.read(start, stop), self._end_of_text)


def document_rows(corpus: Corpus, split: SplitName, window: int) -> DocumentRows:
    """The documents of a split in rows of `window` tokens; what was cut and padded is said.

    Their index is made once and kept in the user's cache.

    Raises:
        UserError: the split is empty, or the cache cannot hold the index.
    """
    if not corpus.split(split).tokens:
        raise UserError(f"{corpus.path} has no {split} documents to pack")
    folder = cache_folder() / "packing" / f"{corpus.identity}-{split}-{window}"
    with _alone(folder):
        packing = _opened(folder, corpus, split, window) or _made(folder, corpus, split, window)
    say(str(packing))
    return DocumentRows(corpus.stream(split), corpus.tokenizer.end_of_text, folder, packing)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only process that opens or makes `folder`."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f".{folder.name}.lock").open("a")
    except OSError as error:
        raise UserError(
            f"{folder.parent} cannot be written ({error.strerror}); set DAYBREAK_CACHE to a folder "
            "for what is made once and kept"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process, which packs these documents")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _opened(folder: Path, corpus: Corpus, split: SplitName, window: int) -> Packing | None:
    """What a folder's index says, all of it verified; None if there is none. A damaged one is deleted, aloud."""
    if not folder.exists():
        return None
    try:
        header = read_sealed(folder / "header.json")
        packing = Packing(**header["packing"])
        if header["index_of"] != _index_of(corpus, split, window):
            raise UserError(f"{folder} is the index of something else")
        sizes = {"pieces": packing.pieces * _PIECE.itemsize, "rows": (packing.rows + 1) * _ROW.itemsize}
        for name, size in sizes.items():
            problem = file_problem(folder / f"{name}.bin", header["sha256"][name], size)
            if problem is not None:
                raise UserError(problem)
    except (UserError, KeyError, TypeError) as error:
        say(f"warning: {error}; packing the documents again")
        shutil.rmtree(folder)
        return None
    return packing


def _made(folder: Path, corpus: Corpus, split: SplitName, window: int) -> Packing:
    tokens, documents = corpus.split(split).tokens, corpus.split(split).documents
    most_pieces = documents + tokens // window + 1
    require_space(folder, most_pieces * (_PIECE.itemsize + _ROW.itemsize))
    with whole_folder(folder) as aside:
        packing = _write_index(aside, corpus, split, window)
        header = {
            "index_of": _index_of(corpus, split, window),
            "packing": asdict(packing),
            "sha256": {name: sha256_file(aside / f"{name}.bin") for name in ("pieces", "rows")},
        }
        write_sealed(aside / "header.json", header)
    return packing


def _index_of(corpus: Corpus, split: SplitName, window: int) -> dict[str, Any]:
    return {"format": _FORMAT, "corpus": corpus.identity, "split": split, "window": window}


def _write_index(folder: Path, corpus: Corpus, split: SplitName, window: int) -> Packing:
    documents = cut = pieces = rows = 0
    tokens = corpus.split(split).tokens
    with (
        (folder / "pieces.bin").open("wb") as pieces_file,
        (folder / "rows.bin").open("wb") as rows_file,
        progress("packing documents", tokens, "tok") as advance,
    ):
        for starts, ends, bare in _portions(corpus, split):
            packed, firsts = _pack(starts, ends, bare, window)
            pieces_file.write(packed.tobytes())
            rows_file.write((firsts + pieces).astype(_ROW).tobytes())
            documents, cut = documents + len(starts), cut + int((ends - starts > window).sum())
            pieces, rows = pieces + len(packed), rows + len(firsts)
            advance(int(ends[-1] - starts[0]))
        rows_file.write(np.asarray([pieces], dtype=_ROW).tobytes())
    return Packing(documents, cut, tokens, pieces, rows, window)


def _portions(corpus: Corpus, split: SplitName) -> Iterator[tuple[Numbers, Numbers, npt.NDArray[np.bool_]]]:
    """Some documents at a time: where each begins and ends in the stream, and whether it lacks its end-of-text."""
    stream = corpus.stream(split)
    end = np.asarray([len(stream)])
    for starts, following in pairwise(chain(_starts(corpus, corpus.split(split)), [end])):
        first_tokens = stream.read_rows(starts.astype(np.uint64), 1)[:, 0]
        yield starts, np.append(starts[1:], following[0]), first_tokens != corpus.tokenizer.end_of_text


def _starts(corpus: Corpus, split: Split) -> Iterator[Numbers]:
    """Where documents begin in the stream, some of one shard at a time. What stands before the first is one too."""
    shard_start, first = 0, True
    for shard in split.shards:
        for begin in range(0, shard.documents, _PORTION):
            path = corpus.path / documents_file(shard.file)
            starts = np.fromfile(path, "<u8", count=_PORTION, offset=8 * begin).astype(np.int64) + shard_start
            yield np.insert(starts, 0, 0) if first and starts[0] else starts
            first = False
        shard_start += shard.tokens
    if first:
        yield np.asarray([0])


def _pack(starts: Numbers, ends: Numbers, bare: npt.NDArray[np.bool_], window: int) -> tuple[npt.NDArray[Any], Numbers]:
    """Documents in rows.

    Args:
        bare: those that do not begin with end-of-text.

    Returns:
        The pieces, row by row, and which of them are the first of a row.
    """
    counts = -(-(ends - starts) // window)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # 0, 1, … of each document
    piece_starts = np.repeat(starts, counts) + within * window
    lengths = np.minimum(window, np.repeat(ends, counts) - piece_starts)
    # What does not begin with end-of-text stands behind one, to be told from what is before it; alone it needs none.
    parted = ((within > 0) | np.repeat(bare, counts)) & (lengths < window)
    row_of = best_fit_decreasing(lengths + parted, window)
    order = np.argsort(row_of, kind="stable")
    taken = (lengths + parted)[order]
    firsts = np.flatnonzero(np.diff(row_of[order], prepend=-1))
    before = np.cumsum(taken) - taken
    pieces = np.empty(len(order), dtype=_PIECE)
    pieces["start"], pieces["length"] = piece_starts[order], lengths[order]
    pieces["column"] = before - before[firsts][row_of[order]] + parted[order]
    return pieces, firsts
