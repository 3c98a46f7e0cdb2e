"""Readers of documents: every kind of file, every kind of bad text, and cuts that change no token."""

import bz2
import gzip
import json
import lzma
import random
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from daybreak.data import documents
from daybreak.data.documents import Document, Fields, Tally, pieces_of
from daybreak.data.inputs import file_input, find_files, read_documents
from daybreak.data.tokenizer import GPT2_PATTERN, Tokenizer, train_bpe
from daybreak.errors import UserError

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstd.compress,
}
PACKED = [".gz", ".xz", ".bz2", ".zst"]


def read(*paths: Path) -> list[str]:
    return ["".join(document.pieces) for document in read_documents(paths)]


def jsonl(*texts: str) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def noise(size: int = 100_000) -> bytes:
    """Text that hardly compresses."""
    generator = random.Random(0)
    return " ".join(str(generator.random()) for _ in range(size // 19)).encode()


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_a_file_of_text_is_one_document_however_it_is_packed(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(COMPRESSORS[suffix]("Ein Tag,\r\nzwei Täge 🌍\n".encode()))
    found = [(document.origin, "".join(document.pieces)) for document in read_documents([path])]
    assert found == [(str(path), "Ein Tag,\r\nzwei Täge 🌍\n")]


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_each_line_of_jsonl_is_a_document_however_it_is_packed(suffix: str, tmp_path: Path) -> None:
    texts = ["eins", "zwei\nZeilen\u2028und drei", "🌍"]
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(COMPRESSORS[suffix](jsonl(*texts)))
    assert read(path) == texts


@pytest.mark.parametrize("suffix", PACKED)
def test_packed_parts_behind_one_another_are_all_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(COMPRESSORS[suffix](b"one ") + COMPRESSORS[suffix](b"two"))
    assert read(path) == ["one two"]


@pytest.mark.parametrize("suffix", PACKED)
def test_a_packed_file_that_breaks_off_is_named(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"half.txt{suffix}"
    path.write_bytes(COMPRESSORS[suffix](noise())[:-1000])
    with pytest.raises(UserError, match=r"half\.txt"):
        read(path)


@pytest.mark.parametrize("suffix", PACKED)
def test_a_file_that_is_not_what_its_suffix_says_is_named(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"plain.txt{suffix}"
    path.write_bytes(b"this is not compressed at all")
    with pytest.raises(UserError, match=r"plain\.txt"):
        read(path)


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2"])  # .zst carries no checksum unless asked to
def test_a_damaged_packed_file_is_named(suffix: str, tmp_path: Path) -> None:
    packed = bytearray(COMPRESSORS[suffix](noise()))
    packed[2000] ^= 0xFF
    path = tmp_path / f"spoilt.txt{suffix}"
    path.write_bytes(packed)
    with pytest.raises(UserError, match=r"spoilt\.txt"):
        read(path)


def test_a_damaged_zst_with_a_checksum_is_named(tmp_path: Path) -> None:
    packed = bytearray(zstd.compress(noise(), options={zstd.CompressionParameter.checksum_flag: 1}))
    packed[2000] ^= 0xFF
    path = tmp_path / "spoilt.txt.zst"
    path.write_bytes(packed)
    with pytest.raises(UserError, match=r"spoilt\.txt"):
        read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.txt"):
        read(tmp_path / "gone.txt")


def test_documents_come_file_by_file_and_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("first")
    (tmp_path / "a.jsonl").write_bytes(jsonl("second", "third"))
    found = list(read_documents([tmp_path / "b.txt", tmp_path / "a.jsonl"]))
    assert [document.origin for document in found] == [
        str(tmp_path / "b.txt"),
        f"{tmp_path / 'a.jsonl'}:1",
        f"{tmp_path / 'a.jsonl'}:2",
    ]


def test_a_folder_gives_its_readable_files_sorted_and_all_the_way_down(tmp_path: Path) -> None:
    for name in ("b.txt", "a.md", "sub/c.jsonl.xz", "sub/d.py", "README", "x.ndjson"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    for name in ("picture.png", ".hidden.txt", ".git/config.txt", "model.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("not text")
    found = [path.relative_to(tmp_path).as_posix() for path in find_files([str(tmp_path)])]
    assert found == ["README", "a.md", "b.txt", "sub/c.jsonl.xz", "sub/d.py", "x.ndjson"]


def test_a_folder_inside_a_hidden_one_is_read(tmp_path: Path) -> None:
    folder = tmp_path / ".local" / "texts"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("text")
    assert find_files([str(folder)]) == [folder / "a.txt"]


def test_a_glob_gives_what_it_matches_sorted(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "a.log", "sub/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    assert find_files([f"{tmp_path}/*.txt"]) == [tmp_path / "a.txt", tmp_path / "b.txt"]
    assert find_files([f"{tmp_path}/**/*.txt"]) == [tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "sub/c.txt"]


def test_a_file_that_two_sources_name_is_read_once(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("text")
    found = find_files([str(tmp_path / "b.txt"), str(tmp_path), f"{tmp_path}/*.txt"])
    assert found == [tmp_path / "b.txt", tmp_path / "a.txt"]


@pytest.mark.parametrize("name", ["a.7z", "a.rar", "A.RAR"])
def test_an_archive_of_a_kind_that_is_not_read_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"../escape")
    with pytest.raises(UserError, match="is an archive of a kind that is not read"):
        find_files([str(tmp_path / name)])
    with pytest.raises(UserError, match="is an archive of a kind that is not read"):
        find_files([str(tmp_path / "*")])


@pytest.mark.parametrize("source", ["gone.txt", "gone/*.txt", "empty"])
def test_a_source_that_matches_nothing_is_named_beside_the_named_corpora(source: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=rf"{source.replace('*', '.')}.*stdlib, zero-one, shakespeare"):
        find_files([str(tmp_path / source)])


def test_a_byte_order_mark_is_dropped_at_the_start_only(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone \xef\xbb\xbftwo")
    (tmp_path / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + jsonl("three"))
    assert read(tmp_path / "a.txt", tmp_path / "b.jsonl") == ["one \ufefftwo", "three"]


def test_invalid_utf8_becomes_replacement_characters(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 \xff ok \xf0\x9f\x8c")
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "caf\xe9"}\n')
    assert read(tmp_path / "a.txt", tmp_path / "b.jsonl") == ["caf\ufffd \ufffd ok \ufffd", "caf\ufffd"]


def test_a_character_that_two_blocks_share_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_PIECE", 5)
    text = "é🌍" * 20
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    assert read(tmp_path / "a.txt") == [text]


def test_lone_surrogates_are_replaced_and_pairs_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a\\ud800b"}\n{"text": "\\ud83c\\udf0d"}\n')
    assert read(tmp_path / "a.jsonl") == ["a\ufffdb", "🌍"]


def test_blank_documents_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_PIECE", 4)
    for name, text in {"a.txt": "", "b.txt": " \n\t" * 5, "c.txt": " \n\t" * 5 + "x", "d.txt": "\ufeff"}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "e.jsonl").write_bytes(jsonl("", "  ", "y") + b"\n   \n" + jsonl("z"))
    assert read(*sorted(tmp_path.iterdir())) == [" \n\t" * 5 + "x", "y", "z"]


def test_line_numbers_count_blank_lines_too(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n" + jsonl("", "two"))
    (document,) = read_documents([tmp_path / "a.jsonl"])
    assert document.origin.endswith("a.jsonl:3")


@pytest.mark.parametrize(
    "line", ["{", "7", "[]", '"text"', "{}", '{"text": 7}', '{"text": null}', '{"Text": "x"}', "[" * 100_000]
)
def test_a_bad_line_of_jsonl_is_named_with_its_number(line: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl("one", "two") + line.encode() + b"\n" + jsonl("four"))
    with pytest.raises(UserError, match=r'a\.jsonl:3: .*"text"'):
        read(path)


def test_other_keys_of_a_line_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1, "text": "one", "meta": {"text": 3}}\r\n')
    assert read(tmp_path / "a.jsonl") == ["one"]


@settings(deadline=None)
@given(chunks=st.lists(st.text(alphabet="ab \n\u3000é", max_size=60)), piece=st.integers(1, 12))
def test_pieces_join_to_the_same_text_and_are_bounded(chunks: list[str], piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "_PIECE", piece)
        pieces = list(pieces_of(chunks))
    assert "".join(pieces) == "".join(chunks)
    assert all(pieces)
    longest_chunk = max(map(len, chunks), default=0)
    assert all(len(part) <= 2 * piece + longest_chunk for part in pieces)


def test_a_long_text_is_read_in_pieces_near_a_million_characters(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("some words " * 500_000)
    sizes = [len(part) for document in read_documents([path]) for part in document.pieces]
    assert sum(sizes) == 5_500_000
    assert len(sizes) == 5
    assert all(size < 2.1 * 2**20 for size in sizes)


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    """A BPE with GPT-2's pattern that knows merges of blanks, words and signs."""
    return train_bpe(iter([long_text(random.Random(0), 20_000)]), 600)


def long_text(generator: random.Random, parts: int) -> str:
    """Words, signs and runs of blanks of every kind."""
    words = ["the", "day's", "it'll", "Äpfel", "2024", "...", "!?", "日本", "🌍", "'s", "e\u0301", "\u200b", "x"]
    blanks = [" ", "  ", "\n", "\n\n    ", "\t", " \u00a0", "\u3000", "\r\n", "   ", "\u2028", "\x0b", "\x85", ""]
    return "".join(generator.choice(words) + generator.choice(blanks) for _ in range(parts))


@pytest.mark.parametrize("seed", range(20))
def test_cutting_never_changes_tokens(seed: int, bpe: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bpe.pattern == GPT2_PATTERN
    generator = random.Random(seed + 1)
    text = long_text(generator, 2000)
    monkeypatch.setattr(documents, "_PIECE", generator.randrange(100, 400))
    chunks = [text[start : start + 53] for start in range(0, len(text), 53)]
    pieces = list(pieces_of(chunks))
    assert len(pieces) > 10
    assert [int(index) for part in pieces for index in bpe.encode(part)] == bpe.encode(text).tolist()


def test_separators_that_only_python_takes_for_blanks_are_no_place_to_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """U+001C to U+001F are white space to `str` and `re`, and signs to the tokenizer's pattern."""
    text = "word +\x1c+ " * 100
    tokenizer = train_bpe(iter([text]), 300)
    assert b" +\x1c+" in tokenizer.ranks
    monkeypatch.setattr(documents, "_PIECE", 105)
    pieces = list(pieces_of([text]))
    assert len(pieces) > 3
    assert [int(index) for part in pieces for index in tokenizer.encode(part)] == tokenizer.encode(text).tolist()


def documents_of(path: Path, tally: Tally, fields: Fields = Fields()) -> list[Document]:  # noqa: B008
    return list(file_input(path, fields).read(tally))


def test_records_without_text_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl("", "one", " \n", "two", "\u3000"))
    (tmp_path / "b.txt").write_bytes(b"  ")
    tally = Tally()
    assert len(documents_of(tmp_path / "a.jsonl", tally)) == 2
    assert documents_of(tmp_path / "b.txt", tally) == []
    assert tally.passed == {"records without text": 4}


def test_carriage_returns_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\rthree\n")
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "one\\r\\ntwo"}\r\n\r\n{"text": "three"}\r\n')
    assert read(tmp_path / "a.txt", tmp_path / "b.jsonl") == ["one\r\ntwo\rthree\n", "one\r\ntwo", "three"]


def test_text_with_nul_is_no_text_and_nul_written_out_in_json_is(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\0two")
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "one\\u0000two"}\n')
    with pytest.raises(UserError, match=r"a\.txt is not text: it holds NUL"):
        read(tmp_path / "a.txt")
    assert read(tmp_path / "b.jsonl") == ["one\0two"]


@pytest.mark.parametrize(
    ("record", "date"),
    [
        ({"date": "2020-01-02"}, "2020-01-02"),
        ({"timestamp": "2019-03-04T05:06:07Z"}, "2019-03-04"),
        ({"meta": {"published": "2018"}}, "2018-01-01"),
        ({"published": "2017", "meta": {"date": "2018"}}, "2017-01-01"),
        ({"date": "2016-07"}, "2016-07-01"),
        ({"date": "Tue, 03 Apr 2018"}, None),
        ({"date": "2018-02-30"}, None),
        ({"date": 20200102, "meta": "2018"}, None),
        ({}, None),
    ],
)
def test_the_date_of_a_record_goes_with_its_document(
    record: dict[str, object], date: str | None, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "x", **record}))
    assert [document.date for document in documents_of(tmp_path / "a.jsonl", Tally())] == [date]


def test_the_text_may_lie_under_another_key(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"content": "one", "text": 7}\n')
    (document,) = documents_of(tmp_path / "a.jsonl", Tally(), Fields(text_key="content"))
    assert "".join(document.pieces) == "one"
    with pytest.raises(UserError, match=r'a\.jsonl:1: .*"body"'):
        documents_of(tmp_path / "a.jsonl", Tally(), Fields(text_key="body"))


def test_records_of_other_components_are_passed_over_and_counted(tmp_path: Path) -> None:
    lines = [
        {"text": f"{number}", "meta": {"pile_set_name": name}}
        for number, name in enumerate(["Books3", "ArXiv", "Books3"])
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, [*lines, {"text": "3"}, {"text": "4", "meta": {"pile_set_name": 5}}])))
    tally = Tally()
    found = documents_of(path, tally, Fields(components=("ArXiv", "Github")))
    assert ["".join(document.pieces) for document in found] == ["1"]
    assert tally.passed == {"records of other components": 4}
    assert tally.components == {"Books3": 2, "ArXiv": 1}


@pytest.mark.parametrize("unit", ["some words ", "wordswithoutblanks", "日本語"])
def test_a_long_line_of_text_passes_in_constant_memory(unit: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(unit * (24_000_000 // len(unit.encode())), encoding="utf-8")
    size, peak = _read_traced(path)
    assert size == path.stat().st_size
    assert peak < 16_000_000


def test_a_long_line_of_jsonl_takes_a_small_multiple_of_its_length(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text((json.dumps({"text": 'some "words"\n' * 1_000_000}) + "\n") * 2)
    size, peak = _read_traced(path)
    assert size == 2 * 13_000_000
    assert peak < 3 * path.stat().st_size / 2


def _read_traced(path: Path) -> tuple[int, int]:
    """Bytes of text, and the most memory that Python held at a time."""
    tracemalloc.start()
    try:
        size = sum(len(piece.encode()) for document in read_documents([path]) for piece in document.pieces)
        return size, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_text_without_blanks_is_cut_in_time_that_grows_with_its_length() -> None:
    """Each cut looks for a blank no further than a piece."""
    began = time.process_time()
    pieces = list(pieces_of(["x" * 40_000_000]))
    assert time.process_time() - began < 8  # some 25 s when each cut searched to the end
    assert max(map(len, pieces)) <= 2 << 20
    assert sum(map(len, pieces)) == 40_000_000
