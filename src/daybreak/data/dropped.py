"""What preparation drops: counted by reason, and kept where that was asked for."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, final

from daybreak.data.blocks import Block
from daybreak.data.corpora import Source
from daybreak.data.tasks import beside


@final
class Rejects:
    """Documents that were dropped, a line of JSON each, with the reason; nowhere, if there is no file."""

    def __init__(self, path: Path | None) -> None:
        self._file: IO[str] | None = None
        if path is not None:
            self._file = path.open("w", encoding="utf-8")

    def add(self, origin: str, reason: str, pieces: Iterator[str]) -> int:
        """Returns the bytes of its text."""
        if self._file is not None:
            self._file.write(f'{{"origin": {json.dumps(origin)}, "reason": {json.dumps(reason)}, "text": "')
        size = 0
        for piece in pieces:
            size += len(piece.encode())
            if self._file is not None:
                self._file.write(json.dumps(piece, ensure_ascii=False)[1:-1])
        if self._file is not None:
            self._file.write('"}\n')
        return size

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def keep_rejects(rejects: Path, stems: list[Path]) -> None:
    """Put together what each task dropped."""
    partial = rejects.with_name(f".{rejects.name}.partial")
    with partial.open("wb") as kept:
        for stem in stems:
            with beside(stem, "rejects").open("rb") as file:
                shutil.copyfileobj(file, kept)
    partial.replace(rejects)


def added(before: Sequence[int] | None, more: Sequence[int]) -> list[int]:
    """Documents and bytes, and some more of them."""
    return [one + other for one, other in zip(before or (0, 0), more, strict=True)]


def report_of(sources: Sequence[Source], by_source: list[list[Block]], results: list[dict[str, Any]]) -> dict[str, Any]:
    """What went in, and what was dropped and why."""
    given = [
        {
            "name": source.name,
            "documents": sum(block.documents for block in blocks),
            "bytes": sum(block.bytes for block in blocks),
        }
        for source, blocks in zip(sources, by_source, strict=True)
    ]
    dropped: dict[str, list[int]] = {}
    for result in results:
        for reason, counted in result["dropped"].items():
            dropped[reason] = added(dropped.get(reason), counted)
    by_reason = sorted(dropped.items())
    return {
        "sources": given,
        "dropped": {reason: documents for reason, (documents, _) in by_reason},
        "dropped_bytes": {reason: size for reason, (_, size) in by_reason},
    }


def shown_reasons(dropped: Mapping[str, int]) -> str:
    """`few words 3, list 1`."""
    return ", ".join(f"{reason} {count:,}" for reason, count in dropped.items())
