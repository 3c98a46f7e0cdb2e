"""The items of a benchmark from a file of one's own."""

import json
from pathlib import Path
from typing import Any

from daybreak.data.compression import open_bytes, suffixes
from daybreak.data.wikitext import articles_of
from daybreak.errors import UserError

_LINES = (".jsonl", ".ndjson", ".json")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file, a JSON list, or Parquet, also packed; or the articles of a text in WikiText's form.

    Raises:
        UserError: it is missing, damaged, empty, or of no such format.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    kind = suffixes(path)[0]
    if kind == ".parquet":
        rows = _parquet(path)
    elif kind in _LINES:
        rows = _json(path)
    else:
        rows = _articles(path)
    if not rows:
        raise UserError(f"{path} holds no items")
    return rows


def _json(path: Path) -> list[dict[str, Any]]:
    with open_bytes(path) as file:
        content = file.read()
    try:
        if content.lstrip()[:1] == b"[":
            rows: list[dict[str, Any]] = json.loads(content)
        else:
            lines = ((number, line) for number, line in enumerate(content.splitlines(), 1) if line.strip())
            rows = [_line(line, f"{path}:{number}") for number, line in lines]
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: each item must be a JSON object")
    return rows


def _line(line: bytes, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}") from None


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    return rows


def _articles(path: Path) -> list[dict[str, Any]]:
    """A text as the document-level WikiText has it: `page`, whole."""
    with open_bytes(path) as file:
        content = file.read()
    try:
        return [{"page": article} for article in articles_of(content.decode())]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is neither JSONL, JSON, Parquet nor text: {error}") from None
