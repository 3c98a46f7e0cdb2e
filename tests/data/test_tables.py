"""Tables: what other libraries write is read back row by row, and what is damaged is named with its line."""

import csv
import gzip
import random
import sys
from pathlib import Path

import pandas
import pyarrow as pa
import pytest
from pyarrow import parquet

from daybreak.data import tables
from daybreak.data.documents import Document, Fields, Tally
from daybreak.data.inputs import file_input
from daybreak.errors import UserError

PLAIN = Fields()


def documents_of(path: Path, fields: Fields = PLAIN, tally: Tally | None = None) -> list[Document]:
    return list(file_input(path, fields).read(tally or Tally()))


def read(path: Path, fields: Fields = PLAIN) -> list[str]:
    return ["".join(document.pieces) for document in documents_of(path, fields)]


def awkward_texts(count: int) -> list[str]:
    generator = random.Random(0)
    parts = ['"', ",", "\t", "\n", "\r\n", "word", "é", "日本", "🌍", "'", " ", "a,b", '"quoted"', "\u2028"]
    return ["x" + "".join(generator.choices(parts, k=generator.randrange(1, 12))) for _ in range(count)]


@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".tsv", "\t"), (".csv.gz", ",")])
def test_a_table_that_pandas_writes_is_read_back(suffix: str, separator: str, tmp_path: Path) -> None:
    texts = awkward_texts(300)
    table = pandas.DataFrame({"id": range(300), "text": texts, "note": texts[::-1]})
    content = table.to_csv(sep=separator, index=False).encode()
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    assert read(path) == texts


def test_a_row_is_known_by_the_line_it_ends_on_and_keeps_its_date(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbftext,date\r\n"two\r\nlines",2020-01-02\r\n\r\none,\r\n')
    found = [(document.origin, document.date) for document in documents_of(tmp_path / "a.csv")]
    assert found == [(f"{tmp_path / 'a.csv'}:3", "2020-01-02"), (f"{tmp_path / 'a.csv'}:5", None)]


def test_a_field_may_be_far_longer_than_the_module_allows_by_itself(tmp_path: Path) -> None:
    csv.field_size_limit(131_072)
    text = 'a long, "quoted" field\n' * 100_000
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text"], [text]])
    assert read(tmp_path / "a.csv") == [text]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"id,body\n1,x\n", r'a\.csv has no column "text" but id, body; --text-key'),
        (b"id,text\n1,x\n2\n", r"a\.csv:3: 1 fields, where the header has 2"),
        (b"id,text\n1,x,y\n", r"a\.csv:2: 3 fields, where the header has 2"),
        (b'text\n"never closed\nand on\n', r"a\.csv:3 is damaged: unexpected end"),
        (b'text\n"closed"badly\n', r"a\.csv:2 is damaged"),
        (b"text\nx\0y\n", r"a\.csv is not text: it holds NUL"),
    ],
    ids=["column", "few", "many", "open", "sign", "nul"],
)
def test_a_damaged_table_is_named_with_its_line(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=said):
        read(tmp_path / "a.csv")


def test_invalid_utf8_in_a_table_becomes_replacement_characters(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text\ncaf\xe9\n")
    assert read(tmp_path / "a.csv") == ["caf\ufffd"]


def test_an_empty_table_has_no_documents(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"")
    (tmp_path / "b.csv").write_bytes(b"text\n")
    assert read(tmp_path / "a.csv") == read(tmp_path / "b.csv") == []


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()], ids=str)
def test_parquet_is_read_row_by_row_across_row_groups(kind: pa.DataType, tmp_path: Path) -> None:
    texts = awkward_texts(250)
    column = pa.array([text.encode() for text in texts], pa.binary()).cast(kind)
    parquet.write_table(pa.table({"id": range(250), "text": column}), tmp_path / "a.parquet", row_group_size=60)
    found = documents_of(tmp_path / "a.parquet")
    assert ["".join(document.pieces) for document in found] == texts
    assert found[200].origin == f"{tmp_path / 'a.parquet'}:201"


def test_rows_without_text_are_counted(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"text": ["a", None, " ", "b", ""]}), tmp_path / "a.parquet")
    tally = Tally()
    assert len(documents_of(tmp_path / "a.parquet", tally=tally)) == 2
    assert tally.passed == {"records without text": 3}


def test_invalid_utf8_in_parquet_becomes_replacement_characters(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\4\0\0\0"), pa.py_buffer(b"caf\xe9")])
    parquet.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == ["caf\ufffd"]


def test_dates_and_components_of_parquet_are_read(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["a", "b", "c"],
            "date": pa.array([0, 86_400_000, None], pa.timestamp("ms")),
            "meta": [{"pile_set_name": name, "other": 1} for name in ("ArXiv", "Books3", "ArXiv")],
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    assert [document.date for document in documents_of(tmp_path / "a.parquet")] == [
        "1970-01-01",
        "1970-01-02",
        None,
    ]
    assert read(tmp_path / "a.parquet", Fields(components=("ArXiv",))) == ["a", "c"]


def test_only_the_columns_that_are_needed_are_read(tmp_path: Path) -> None:
    """The bytes of another column are destroyed, which nobody notices."""
    noise = random.Random(0).randbytes(50_000)
    table = pa.table({"text": ["a"] * 10, "picture": [noise] * 10})
    parquet.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    column = parquet.read_metadata(tmp_path / "a.parquet").row_group(0).column(1)
    content[column.data_page_offset : column.data_page_offset + column.total_compressed_size] = bytes(
        column.total_compressed_size
    )
    (tmp_path / "a.parquet").write_bytes(content)
    assert read(tmp_path / "a.parquet") == ["a"] * 10
    with pytest.raises(OSError, match=r"."):
        parquet.read_table(tmp_path / "a.parquet")


def test_parquet_is_read_in_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 MB in one row group: 8 MB of it are held at a time, as the allocator of pyarrow counts them."""
    text = "some words of a document " * 4000
    with parquet.ParquetWriter(
        tmp_path / "a.parquet", pa.schema({"text": pa.string()}), use_dictionary=False, write_batch_size=10
    ) as writer:
        writer.write_table(pa.table({"text": [f"{number} {text}" for number in range(1000)]}))
    held, rows = 0, 0
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    for document in file_input(tmp_path / "a.parquet", PLAIN).read(Tally()):
        rows += 1
        held = max(held, pool.bytes_allocated() - before)
        assert next(document.pieces)
    assert rows == 1000
    assert held < 40_000_000


@pytest.mark.parametrize(
    ("column", "said"),
    [({"body": ["a"]}, 'has no column "text" but body'), ({"text": [7]}, 'the column "text" holds int64, not text')],
)
def test_a_parquet_file_without_text_is_named(column: dict[str, list[object]], said: str, tmp_path: Path) -> None:
    parquet.write_table(pa.table(column), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=rf"a\.parquet.*{said}"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize("how", ["cut", "rubbish", "empty", "flipped"])
def test_a_damaged_parquet_file_is_named(how: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": awkward_texts(2000)}), path)
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    damaged = {"cut": path.read_bytes()[:-20], "rubbish": b"no parquet", "empty": b"", "flipped": bytes(content)}
    path.write_bytes(damaged[how])
    with pytest.raises(UserError, match=r"a\.parquet cannot be read"):
        read(path)


def test_a_missing_package_is_named_with_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'daybreak\[data\]'"):
        tables._pyarrow()
