"""Token files of other tools as a corpus, without a copy.

The corpus holds links to the files, and their hashes. Each file is read once: for its hash, for the bytes of text
that its tokens stand for, for ids that the tokenizer does not have, and for where documents start.

A document starts where an index says so (datatrove), else at an end-of-text, which llm.c and build-nanogpt put in front
of a document, or behind one, as nanoGPT and datatrove have it. The first file tells which: it begins with one, or ends
with one; if neither, its kind decides. The first token of a split always starts a document, be it in the midst of one.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daybreak.data.shards import SPLITS, Corpus, Shard, Split, documents_file, write_manifest
from daybreak.data.token_files import Kind, TokenFile, open_token_file
from daybreak.data.tokenizer import Tokenizer, is_learned, make_tokenizer
from daybreak.errors import UserError
from daybreak.files import require_text, sha256_file, whole_folder
from daybreak.progress import progress, say

_VALIDATION = 0.01
_BLOCK = 1 << 20  # tokens read at once
_NOTHING = -1  # before the first token of a split


@final
@dataclass(frozen=True)
class _Part:
    """Tokens [first, stop) of a file."""

    file: TokenFile
    first: int
    stop: int


@final
@dataclass(frozen=True)
class _Boundaries:
    """How documents are told apart where no index does it."""

    end_of_text: int
    in_front: bool

    def starts(self, part: _Part, tokens: npt.NDArray[Any], before: int) -> npt.NDArray[np.int64]:
        """Where in its file documents start among `tokens`, which are those of `part`; `before` is the token before."""
        ends = part.file.document_ends()
        if ends is not None:
            first, stop = (np.searchsorted(ends, np.uint64(place)) for place in (part.first, part.stop))
            found = np.unique(ends[first:stop]).astype(np.int64)
            return found if part.first else np.union1d(found, [0])
        places = np.flatnonzero(tokens == self.end_of_text)
        if not self.in_front:
            places = places[places + 1 < len(tokens)] + 1
            if before == self.end_of_text:
                places = np.insert(places, 0, 0)
        return part.first + places


def import_files(
    paths: Sequence[Path],
    out: Path,
    *,
    tokenizer: str = "gpt2",
    validation: Sequence[Path] = (),
    share: float | None = None,
    kind: Kind | None = None,
) -> Corpus:
    """Make a corpus of token files as they lie, of which nothing is copied.

    Args:
        paths: the files, in their order.
        out: the folder to make; it appears only when it is whole.
        tokenizer: the one that made the tokens: `gpt2`, `bytes`, or the path of a tokenizer or corpus.
        validation: files for validation.
        share: of the tokens, which is kept for validation where there are no such files, at the tail; 0.01 unless
            given. The tail begins with a document where one starts before half of it has passed.
        kind: of the files, where neither content nor name tells.

    Raises:
        UserError: a file is missing or damaged, or holds ids that the tokenizer does not have; `out` exists.
    """
    if validation and share is not None:
        raise UserError("--val and --validation exclude each other: the tail is kept only where no files are given")
    share = _VALIDATION if share is None else share
    if not 0 < share < 1:
        raise UserError(f"--val {share:g} is no share: it must lie between 0 and 1, as 0.01")
    require_text(out)
    if out.exists():
        raise UserError(f"{out} exists already; choose another --out, or delete it to import again")
    known = _known_tokenizer(tokenizer)
    files, held_out = ([open_token_file(path, known, kind) for path in each] for each in (paths, validation))
    _require_distinct([*files, *held_out])
    boundaries = _Boundaries(known.end_of_text, _in_front(files[0], known.end_of_text))
    if held_out:
        parts = {"train": _whole(files), "validation": _whole(held_out)}
    else:
        parts = _cut_tail(files, share, boundaries)

    with whole_folder(out) as folder:
        with progress("importing", sum(file.bytes for file in (*files, *held_out)), "B") as advance:
            reading = _Reading(folder, known, boundaries, advance)
            read = {name: reading.split(name, parts[name]) for name in SPLITS}
        splits = {name: reading.with_hashes(read[name], parts[name]) for name in SPLITS}
        write_manifest(folder, known, splits, [str(path) for path in (*paths, *validation)])
    return Corpus.open_unverified(out)  # every byte of it was hashed just now


def _known_tokenizer(name: str) -> Tokenizer:
    if is_learned(name):
        raise UserError(
            f"--tokenizer {name} is learned from text, but these are tokens already; "
            "give the one that made them: gpt2, bytes, or the path of a tokenizer or corpus"
        )
    return make_tokenizer(name, iter(()))


def _require_distinct(files: Sequence[TokenFile]) -> None:
    seen: set[Path] = set()
    for file in files:
        if file.path in seen:
            raise UserError(f"{file.path} is given twice; text must not come twice, nor be trained and validated on")
        seen.add(file.path)


def _in_front(file: TokenFile, end_of_text: int) -> bool:
    """Whether an end-of-text stands in front of a document; else it stands behind."""
    tokens = file.mapped()
    if end_of_text in (tokens[0], tokens[-1]):
        return bool(tokens[0] == end_of_text)
    return file.kind in ("llm.c", "npy")


def _whole(files: Sequence[TokenFile]) -> list[_Part]:
    return [_Part(file, 0, file.tokens) for file in files]


def _cut_tail(files: Sequence[TokenFile], share: float, boundaries: _Boundaries) -> dict[str, list[_Part]]:
    tokens = sum(file.tokens for file in files)
    if tokens < 2:
        raise UserError(f"{files[0].path} holds one token, which cannot be both for training and for validation")
    tail = min(max(1, round(tokens * share)), tokens - 1)
    train: list[_Part] = []
    validation: list[_Part] = []
    begin = 0
    for file in files:
        cut = min(max(0, tokens - tail - begin), file.tokens)
        if 0 < cut < file.tokens:
            cut = _document_from(_Part(file, cut, min(file.tokens, cut + tail // 2)), boundaries)
        train += [_Part(file, 0, cut)] if cut else []
        validation += [_Part(file, cut, file.tokens)] if cut < file.tokens else []
        begin += file.tokens
    kept = sum(part.stop - part.first for part in validation)
    say(f"validation: the last {kept:,} of {tokens:,} tokens ({kept / tokens:.2%})")
    return {"train": train, "validation": validation}


def _document_from(part: _Part, boundaries: _Boundaries) -> int:
    """Where the first document of a part starts; at its first token if none does."""
    tokens = part.file.mapped()
    for first in range(part.first, part.stop, _BLOCK):
        block = _Part(part.file, first, min(part.stop, first + _BLOCK))
        starts = boundaries.starts(block, tokens[block.first : block.stop], int(tokens[first - 1]))
        if len(starts):
            return int(starts[0])
    return part.first


@final
class _Reading:
    """One pass over the files, in order, so that parts of one file are hashed one behind the other."""

    def __init__(
        self, folder: Path, tokenizer: Tokenizer, boundaries: _Boundaries, advance: Callable[[int], None]
    ) -> None:
        self._folder, self._tokenizer, self._boundaries, self._advance = folder, tokenizer, boundaries, advance
        self._hashes: dict[Path, hashlib._Hash] = {}

    def split(self, name: str, parts: Sequence[_Part]) -> Split:
        """Link its files and write where its documents start; the hashes of the tokens are yet to come."""
        shards: list[Shard] = []
        text_bytes = 0
        before = _NOTHING
        for number, part in enumerate(parts):
            link = self._folder / f"{name}-{number:05d}.bin"
            link.symlink_to(part.file.path)
            documents = link.with_name(documents_file(link.name))
            found, size, before = self._read(part, documents, before)
            text_bytes += size
            start = part.file.start + part.first * part.file.dtype.itemsize
            tokens = part.stop - part.first
            whole = start == 0 and tokens == part.file.tokens
            inside = None if whole else part.file.bytes
            shards.append(Shard(link.name, tokens, found, "", sha256_file(documents), start, inside))
        tokens, found = sum(shard.tokens for shard in shards), sum(shard.documents for shard in shards)
        return Split(tokens, found, text_bytes, tuple(shards))

    def with_hashes(self, split: Split, parts: Sequence[_Part]) -> Split:
        """The split with the hashes of its files, all of which have been read."""
        hashes = [self._hashes[part.file.path].hexdigest() for part in parts]
        shards = (replace(shard, sha256=sha256) for shard, sha256 in zip(split.shards, hashes, strict=True))
        return replace(split, shards=tuple(shards))

    def _read(self, part: _Part, documents: Path, before: int) -> tuple[int, int, int]:
        """Documents of a part, bytes of its text, its last token; `before` is the token before it."""
        file, found, text_bytes = part.file, 0, 0
        hashed = self._hashes.setdefault(file.path, hashlib.sha256())
        with file.path.open("rb") as source, documents.open("wb") as starts_file:
            if part.first == 0:
                hashed.update(source.read(file.start))
            source.seek(file.start + part.first * file.dtype.itemsize)
            for first in range(part.first, part.stop, _BLOCK):
                block = _Part(file, first, min(part.stop, first + _BLOCK))
                tokens = self._read_block(source.read((block.stop - first) * file.dtype.itemsize), block, hashed)
                text_bytes += int(self._tokenizer.token_bytes[tokens].sum())
                starts = self._boundaries.starts(block, tokens, before)
                if before == _NOTHING:
                    starts = np.union1d(starts, [first])
                starts_file.write((starts - part.first).astype("<u8").tobytes())
                found += len(starts)
                before = int(tokens[-1])
        return found, text_bytes, before

    def _read_block(self, content: bytes, block: _Part, hashed: "hashlib._Hash") -> npt.NDArray[Any]:
        if len(content) != (block.stop - block.first) * block.file.dtype.itemsize:
            raise UserError(f"{block.file.path} became shorter while it was read; import it when it is complete")
        hashed.update(content)
        tokens = np.frombuffer(content, block.file.dtype)
        highest, vocab_size = int(tokens.max()), self._tokenizer.vocab_size
        if highest >= vocab_size:
            raise UserError(
                f"{block.file.path} holds the id {highest:,} as token {block.first + int(tokens.argmax()):,}, but "
                f"tokenizer {self._tokenizer.name} has only {vocab_size:,} ids: another one made it"
            )
        self._advance(len(content))
        return tokens
