"""The corpus on disk, format 1.

    CORPUS/
      manifest.json              tokenizer identity, counts, SHA-256 of every other file
      tokenizer.json             the tokenizer itself
      train-00000.bin            raw little-endian token ids, uint16 or uint32
      train-00000.documents.bin  where each document starts in that shard, little-endian uint64
      validation-00000.bin       ...

A document may run on from one shard into the next; the shards of a split are one stream.
A file of tokens may be a link to one that another tool wrote (`daybreak import`); its shard then says where in it the
tokens lie.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import numpy.typing as npt

from daybreak.data.tokenizer import Tokenizer
from daybreak.errors import UserError
from daybreak.files import file_problem, read_sealed, require_text, sha256_file, write_json, write_sealed
from daybreak.folders import is_a, is_no
from daybreak.progress import progress

FORMAT = 1
SplitName = Literal["train", "validation"]
SPLITS: tuple[SplitName, ...] = ("train", "validation")
_WORTH_SHOWING = 2_000_000_000  # bytes, which take some seconds to hash


@final
@dataclass(frozen=True)
class Shard:
    """One file of tokens as the manifest describes it.

    Attributes:
        sha256: of the whole file of tokens; `documents_sha256` is that of the offsets.
        start: bytes in front of the first token.
        file_bytes: size of a file that holds more than these tokens; None where they are all of it.
    """

    file: str
    tokens: int
    documents: int
    sha256: str
    documents_sha256: str
    start: int = 0
    file_bytes: int | None = None


@final
@dataclass(frozen=True)
class Split:
    """One split's totals and shards. `bytes` counts the UTF-8 bytes of its text."""

    tokens: int
    documents: int
    bytes: int
    shards: tuple[Shard, ...]


@final
class TokenStream:
    """The tokens of a split, one after another across its shards, memory-mapped."""

    def __init__(self, shards: list[npt.NDArray[Any]]) -> None:
        self._shards = shards
        self._ends = np.cumsum([len(shard) for shard in shards])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Tokens [start, stop), which must lie inside the stream, as int64."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"tokens {start} to {stop} of a stream of {len(self)}")
        out = np.empty(stop - start, dtype=np.int64)
        shard = int(np.searchsorted(self._ends, start, side="right"))
        position = start
        while position < stop:
            shard_start = int(self._ends[shard]) - len(self._shards[shard])
            end = min(stop, int(self._ends[shard]))
            part = self._shards[shard][position - shard_start : end - shard_start]
            out[position - start : end - start] = part
            position, shard = end, shard + 1
        return out

    def read_rows(self, starts: npt.NDArray[np.uint64], length: int) -> npt.NDArray[np.int64]:
        """`length` tokens from each start, which must lie inside the stream: (len(starts), length), as int64."""
        low, high = int(starts.min()), int(starts.max()) + length - 1
        first, last = (int(shard) for shard in np.searchsorted(self._ends, [low, high], side="right"))
        if first == last < len(self._ends):  # all in one shard, read at once
            places = starts.astype(np.int64) - (int(self._ends[first]) - len(self._shards[first]))
            rows: npt.NDArray[np.int64] = self._shards[first][places[:, None] + np.arange(length)].astype(np.int64)
            return rows
        return np.stack([self.read(int(start), int(start) + length) for start in starts])


@final
@dataclass(frozen=True)
class Corpus:
    """A prepared corpus. Open it with `Corpus.open`, which trusts nothing on disk.

    Attributes:
        report_sha256: of report.json, which says what it was made of; None where there is none.
    """

    path: Path
    tokenizer: Tokenizer
    train: Split
    validation: Split
    report_sha256: str | None = None

    @classmethod
    def open(cls, path: Path) -> "Corpus":
        """Open a corpus and verify its manifest, its tokenizer, and every shard's size and hash.

        Raises:
            UserError: names the file that is missing, damaged or of an unknown format.
        """
        corpus = cls.open_unverified(path)
        size = sum(size for _, size, _ in corpus.files())
        shown = progress("verifying the corpus", size, "B") if size > _WORTH_SHOWING else nullcontext(lambda _: None)
        with shown as advance:
            for problem in corpus.problems(advance):
                raise UserError(f"{problem}; prepare the corpus again")
        return corpus

    @classmethod
    def open_unverified(cls, path: Path) -> "Corpus":
        """Open a corpus without reading its shards, where `problems` is asked, here or by another process.

        Raises:
            UserError: the manifest or the tokenizer is missing, damaged or of an unknown format.
        """
        require_text(path)
        if not is_a("corpus", path):
            raise is_no(path, "corpus")
        manifest = read_sealed(path / "manifest.json")
        try:
            if manifest["format"] != FORMAT:
                raise UserError(
                    f"{path}: corpus format {manifest['format']} is not known here; use the version that wrote it"
                )
            splits = {name: _split_from_json(manifest["splits"][name]) for name in SPLITS}
            identity, sha256, dtype = manifest["tokenizer"], manifest["tokenizer_sha256"], manifest["dtype"]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path / 'manifest.json'} is damaged ({error!r}); prepare the corpus again") from None
        tokenizer = Tokenizer.load(path / "tokenizer.json")
        if tokenizer.identity != identity or sha256_file(path / "tokenizer.json") != sha256:
            raise UserError(
                f"{path / 'tokenizer.json'} is damaged: it is not the one that the manifest names; "
                "prepare the corpus again"
            )
        if dtype != token_dtype(tokenizer.vocab_size).str:
            raise UserError(
                f"{path / 'manifest.json'} is damaged: {dtype} does not fit its tokenizer's ids; "
                "prepare the corpus again"
            )
        for shard in (*splits["train"].shards, *splits["validation"].shards):
            end = shard.start + shard.tokens * np.dtype(dtype).itemsize
            if shard.file_bytes is not None and end > shard.file_bytes:
                raise UserError(
                    f"{path / 'manifest.json'} is damaged: {shard.file} is smaller than its tokens; "
                    "prepare the corpus again"
                )
        report = manifest.get("report_sha256")
        return cls(path, tokenizer, splits["train"], splits["validation"], None if report is None else str(report))

    def files(self) -> Iterator[tuple[Path, int, str]]:
        """Every file beside manifest and tokenizer: where it lies, its bytes, its SHA-256.

        A file that two shards share, as where the tail of an imported one is for validation, comes once.
        """
        seen: set[tuple[Path, int, str]] = set()
        for split in (self.train, self.validation):
            for shard in split.shards:
                path = self.path / shard.file
                size = self._file_bytes(shard)
                file = (path.resolve(), size, shard.sha256)
                if file not in seen:
                    seen.add(file)
                    yield path, size, shard.sha256
                yield self.path / documents_file(shard.file), shard.documents * 8, shard.documents_sha256
        if self.report_sha256 is not None:
            report = self.path / "report.json"
            yield report, report.stat().st_size if report.exists() else 0, self.report_sha256

    def problems(self, advance: Callable[[int], None] = lambda _: None) -> Iterator[str]:
        """What is wrong with the shards, one file at a time; reads all of them.

        Args:
            advance: told the bytes of each file that was read.
        """
        for path, size, sha256 in self.files():
            problem = file_problem(path, sha256, size) or self.unknown_id(path)
            if problem is not None:
                yield problem
            advance(size)

    def unknown_id(self, path: Path) -> str | None:
        """What is wrong with a file of tokens that holds ids beyond the tokenizer's; None for any other file."""
        vocab_size = self.tokenizer.vocab_size
        for shard in self._shards_in.get(path.resolve(), ()):
            if self._file_bytes(shard) != path.stat().st_size:
                continue  # a link that leads astray, which is said where its own hash is checked
            highest = int(self._mapped(shard).max())
            if highest >= vocab_size:
                return f"{path} holds the id {highest:,}, but its tokenizer has only {vocab_size:,} ids"
        return None

    @cached_property
    def _shards_in(self) -> dict[Path, list[Shard]]:
        """Those that lie in each file of tokens."""
        found: dict[Path, list[Shard]] = {}
        for shard in (*self.train.shards, *self.validation.shards):
            found.setdefault((self.path / shard.file).resolve(), []).append(shard)
        return found

    def _file_bytes(self, shard: Shard) -> int:
        itemsize = token_dtype(self.tokenizer.vocab_size).itemsize
        return shard.tokens * itemsize if shard.file_bytes is None else shard.file_bytes

    def _mapped(self, shard: Shard) -> npt.NDArray[Any]:
        dtype = token_dtype(self.tokenizer.vocab_size)
        return np.memmap(self.path / shard.file, dtype=dtype, mode="r", offset=shard.start, shape=(shard.tokens,))

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the manifest, which holds the hashes of all else."""
        return sha256_file(self.path / "manifest.json")

    def split(self, name: SplitName) -> Split:
        """The totals and shards of a split."""
        return {"train": self.train, "validation": self.validation}[name]

    def stream(self, name: SplitName) -> TokenStream:
        """The tokens of the split `train` or `validation`."""
        return TokenStream([self._mapped(shard) for shard in self.split(name).shards])


def write_manifest(
    folder: Path, tokenizer: Tokenizer, splits: Mapping[SplitName, Split], sources: list[str], plan: str | None = None
) -> None:
    """Write tokenizer.json and manifest.json, which make a folder of shards a corpus.

    Args:
        plan: identity of all that it was made of, where a report.json says what that was.
    """
    write_json(folder / "tokenizer.json", tokenizer.to_json())
    manifest = {
        "format": FORMAT,
        "tokenizer": tokenizer.identity,
        "tokenizer_sha256": sha256_file(folder / "tokenizer.json"),
        "tokenizer_name": tokenizer.name,
        "dtype": token_dtype(tokenizer.vocab_size).str,
        "sources": sources,
        **({} if plan is None else {"plan": plan, "report_sha256": sha256_file(folder / "report.json")}),
        "splits": {name: _split_to_json(split) for name, split in splits.items()},
    }
    write_sealed(folder / "manifest.json", manifest)


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest type on disk that holds every id."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def documents_file(shard_file: str) -> str:
    return shard_file.removesuffix(".bin") + ".documents.bin"


def _split_to_json(split: Split) -> dict[str, Any]:
    return {
        "tokens": split.tokens,
        "documents": split.documents,
        "bytes": split.bytes,
        "shards": [_shard_to_json(shard) for shard in split.shards],
    }


def _shard_to_json(shard: Shard) -> dict[str, Any]:
    """Its keys are those of format 1 as it always was, but where tokens lie inside a larger file."""
    value = dict(vars(shard))
    if shard.file_bytes is None:
        del value["start"], value["file_bytes"]
    return value


def _split_from_json(value: dict[str, Any]) -> Split:
    shards = tuple(Shard(**shard) for shard in value["shards"])
    for shard in shards:
        if Path(shard.file).name != shard.file:
            raise ValueError(f"shard name {shard.file!r} leads out of the corpus")
        if type(shard.sha256) is not str or type(shard.documents_sha256) is not str:
            raise ValueError(f"shard {shard.file!r} has no hashes")
        _require_count(shard.tokens, at_least=1)
        _require_count(shard.documents)
        _require_count(shard.start)
        if shard.file_bytes is not None:
            _require_count(shard.file_bytes)
        elif shard.start:
            raise ValueError(f"shard {shard.file!r} starts inside a file of no known size")
    _require_count(value["bytes"])
    split = Split(value["tokens"], value["documents"], value["bytes"], shards)
    for what in ("tokens", "documents"):
        if sum(getattr(shard, what) for shard in shards) != getattr(split, what):
            raise ValueError(f"the shards' {what} do not add up to the split's")
    return split


def _require_count(value: object, at_least: int = 0) -> None:
    if type(value) is not int or value < at_least:
        raise ValueError(f"{value!r} is no count")
