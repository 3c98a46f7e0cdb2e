"""Readers of tables, a document for each row: CSV, TSV, Parquet."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daybreak.data.compression import naming
from daybreak.data.documents import (
    DATE_KEYS,
    WITHOUT_TEXT,
    Document,
    Fields,
    Tally,
    document_of,
    require_text_bytes,
)
from daybreak.errors import UserError

_LONGEST_FIELD = 1 << 30
_BATCH_BYTES = 8 << 20
_BATCH_ROWS = 1024


def read_csv(file: io.BufferedReader, origin: str, delimiter: str, fields: Fields, tally: Tally) -> Iterator[Document]:
    """The rows under a header that names the column of the text; quoted as RFC 4180 says.

    Invalid UTF-8 becomes U+FFFD; a byte-order mark at the start is dropped.

    Raises:
        UserError: the header lacks the column, a row has more or fewer fields than the header, a quotation is
            not closed, a field is longer than 2**30 characters.
    """
    require_text_bytes(file, origin)
    csv.field_size_limit(_LONGEST_FIELD)
    lines = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise UserError(f"{origin}:{rows.line_num} is damaged: {error}") from None
        if row is None:
            return
        where = f"{origin}:{rows.line_num}"
        if not row:
            continue
        if not header:
            header = row
            _require_column(header, origin, fields)
        elif len(row) != len(header):
            raise UserError(f"{where}: {len(row)} fields, where the header has {len(header)}")
        else:
            document = document_of(dict(zip(header, row, strict=True)), where, fields, tally)
            if document is not None:
                yield document


def read_parquet(path: Path, origin: str, fields: Fields, tally: Tally) -> Iterator[Document]:
    """The rows of a Parquet file, in batches of about 8 MB, of the columns that are needed only.

    Invalid UTF-8 becomes U+FFFD; a row whose text is null is one without text.

    Raises:
        UserError: it cannot be read, or lacks a column of text under the key of the text.
    """
    arrow, parquet = _pyarrow()
    with naming(origin), _naming_arrow(origin), parquet.ParquetFile(path, buffer_size=1 << 20) as file:
        columns = _columns(file.schema_arrow, origin, fields)
        number = 0
        for group in range(file.num_row_groups):
            metadata = file.metadata.row_group(group)
            rows = _BATCH_BYTES * metadata.num_rows // max(1, metadata.total_byte_size)
            for batch in file.iter_batches(
                batch_size=min(max(1, rows), _BATCH_ROWS), row_groups=[group], columns=columns, use_threads=False
            ):
                for record in _records(arrow, batch, fields.text_key):
                    number += 1
                    if record[fields.text_key] is None:
                        tally.passed[WITHOUT_TEXT] += 1
                        continue
                    document = document_of(record, f"{origin}:{number}", fields, tally)
                    if document is not None:
                        yield document


def _require_column(columns: Sequence[str], origin: str, fields: Fields) -> None:
    if fields.text_key not in columns:
        raise UserError(
            f'{origin} has no column "{fields.text_key}" but {", ".join(columns)}; '
            "--text-key names the column of the text"
        )


def _columns(schema: Any, origin: str, fields: Fields) -> list[str]:
    """The text, the date and the component, as far as they are there."""
    arrow, _ = _pyarrow()
    _require_column(schema.names, origin, fields)
    kind = schema.field(fields.text_key).type
    if not any(test(kind) for test in (arrow.types.is_string, arrow.types.is_large_string, arrow.types.is_binary)):
        raise UserError(f'{origin}: the column "{fields.text_key}" holds {kind}, not text')
    columns = [fields.text_key, *(key for key in DATE_KEYS if key in schema.names and key != fields.text_key)]
    if "meta" in schema.names and arrow.types.is_struct(schema.field("meta").type):
        inside = {field.name for field in schema.field("meta").type if arrow.types.is_string(field.type)}
        columns += [f"meta.{key}" for key in ("pile_set_name", *DATE_KEYS) if key in inside]
    return columns


def _records(arrow: Any, batch: Any, text_key: str) -> Iterator[Mapping[str, Any]]:
    """Rows as dictionaries: text decoded leniently, times as ISO text."""
    texts = batch.column(text_key).cast(arrow.large_binary())
    others = {
        name: column.cast(arrow.string()) if arrow.types.is_temporal(column.type) else column
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
        if name != text_key
    }
    for row, text in enumerate(texts):
        content = text.as_py()
        yield {
            **{name: column[row].as_py() for name, column in others.items()},
            text_key: None if content is None else content.decode("utf-8", errors="replace"),
        }


@contextmanager
def _naming_arrow(origin: str) -> Iterator[None]:
    arrow, _ = _pyarrow()
    try:
        yield
    except arrow.ArrowException as error:
        raise UserError(f"{origin} cannot be read: {error}") from error


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError("Parquet needs the package pyarrow: pip install 'daybreak[data]'") from None
    return pyarrow, pyarrow.parquet
