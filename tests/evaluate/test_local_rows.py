"""Items of benchmarks from files: every format gives the same rows, and what cannot be read is named with its place."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pytest

from daybreak.data.wikitext import articles_of
from daybreak.errors import UserError
from daybreak.evaluate.local_rows import read_rows

ROWS = [
    {"question": "Où?", "choices": {"text": ["a", "b"], "label": ["1", "2"]}},
    {"question": "é\u2028", "choices": {}},
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
ARTICLES = " \n = One = \n \n Text of one . \n \n = = Part = = \n \n More . \n \n = Two = \n \n Text of two . \n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.json", json.dumps(ROWS).encode()),
        ("a.jsonl.xz", lzma.compress(LINES)),
        ("a.jsonl.gz", gzip.compress(LINES, mtime=0)),
        ("a.ndjson.bz2", bz2.compress(b"\n" + LINES)),
    ],
)
def test_json_in_its_forms(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert read_rows(tmp_path / name) == ROWS


def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [{"question": "why", "answer": 1}, {"question": "how", "answer": 0}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read_rows(tmp_path / "a.parquet") == rows


def test_a_text_is_wikitexts_articles(tmp_path: Path) -> None:
    (tmp_path / "wiki.valid.tokens").write_text(ARTICLES)
    pages = [row["page"] for row in read_rows(tmp_path / "wiki.valid.tokens")]
    assert [page.split("\n")[0] for page in pages] == [" = One = ", " = Two = "]
    assert "".join(pages) == ARTICLES.removeprefix(" \n")
    assert articles_of("no title\nat all\n") == ["no title\nat all\n"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', r"a\.jsonl:2 is not JSON"),
        ("a.jsonl", b"", r"a\.jsonl holds no items"),
        ("a.json", b"[1, 2]", r"each item must be a JSON object"),
        ("a.json", b"[" * 200_000, r"a\.json is not JSON"),
        ("a.jsonl", b'{"a": 1}\n' + b'{"a":' * 200_000, r"a\.jsonl:2 is not JSON"),
        ("a.jsonl.xz", lzma.compress(LINES)[:-9], r"a\.jsonl\.xz cannot be read"),
        ("a.parquet", b"PAR1", r"a\.parquet cannot be read"),
        ("a.bin", b"\xff\xfe\x00", r"neither JSONL, JSON, Parquet nor text"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_rows(tmp_path / name)
