"""Shards written one token after another, for tests that want them with such and such tokens."""

from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from daybreak.data.shards import Shard, Split, documents_file
from daybreak.files import sha256_file


@final
class ShardWriter:
    """Writes one split's documents into shards; memory does not grow with the text."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype[Any], shard_tokens: int = 100_000_000) -> None:
        self._folder, self._name, self._dtype, self._shard_tokens = folder, name, dtype, shard_tokens
        self._shards: list[Shard] = []
        self._starts: list[int] = []
        self._in_shard = 0
        self._tokens = self._documents = self._bytes = 0
        self._file = self._path().open("wb")

    def start_document(self, end_of_text: int) -> None:
        """Begin a document: its end-of-text stands in front of it."""
        if self._in_shard == self._shard_tokens:
            self._next_shard()
        self._starts.append(self._in_shard)
        self._documents += 1
        self._append(np.asarray([end_of_text]))

    def write(self, tokens: npt.NDArray[Any], text_bytes: int) -> None:
        """Append tokens of the current document, which stand for `text_bytes` bytes of text."""
        self._bytes += text_bytes
        while len(tokens):
            if self._in_shard == self._shard_tokens:
                self._next_shard()
            room = self._shard_tokens - self._in_shard
            self._append(tokens[:room])
            tokens = tokens[room:]

    def close(self) -> Split:
        self._finish_shard()
        return Split(self._tokens, self._documents, self._bytes, tuple(self._shards))

    def _append(self, tokens: npt.NDArray[Any]) -> None:
        self._file.write(tokens.astype(self._dtype, copy=False).tobytes())
        self._in_shard += len(tokens)
        self._tokens += len(tokens)

    def _path(self) -> Path:
        return self._folder / f"{self._name}-{len(self._shards):05d}.bin"

    def _next_shard(self) -> None:
        self._finish_shard()
        self._starts, self._in_shard = [], 0
        self._file = self._path().open("wb")

    def _finish_shard(self) -> None:
        self._file.close()
        path = self._path()
        if not self._in_shard:
            path.unlink()
            return
        documents = self._folder / documents_file(path.name)
        documents.write_bytes(np.asarray(self._starts, dtype="<u8").tobytes())
        self._shards.append(
            Shard(path.name, self._in_shard, len(self._starts), sha256_file(path), sha256_file(documents))
        )
