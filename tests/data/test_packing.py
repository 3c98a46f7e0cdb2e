"""Rows of documents: every token is an input once an epoch, and a row says by itself which tokens are one document."""

import fcntl
import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daybreak.data import packing
from daybreak.data.download import cache_folder
from daybreak.data.packing import DocumentRows, document_rows
from daybreak.data.shards import Corpus, TokenStream, token_dtype, write_manifest
from daybreak.data.tokenizer import byte_tokenizer
from daybreak.data.windows import IGNORED
from daybreak.errors import UserError
from shard_writer import ShardWriter

END = 256
_PLACES = 1000  # tokens that are their own places count from here


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYBREAK_CACHE", str(tmp_path / "cache"))


def write_corpus(folder: Path, lengths: list[int], shard_tokens: int = 50, head: int = 0) -> Corpus:
    """A corpus of documents of so many bytes; in front of the first, `head` bytes of one that began before."""
    generator = np.random.default_rng(sum(lengths))
    writer = ShardWriter(folder, "train", token_dtype(257), shard_tokens)
    writer.write(generator.integers(0, 256, head), head)
    for length in lengths:
        writer.start_document(END)
        writer.write(generator.integers(0, 256, length), length)
    validation = ShardWriter(folder, "validation", token_dtype(257))
    validation.start_document(END)
    write_manifest(folder, byte_tokenizer(), {"train": writer.close(), "validation": validation.close()}, ["nowhere"])
    return Corpus.open(folder)


@dataclass(frozen=True)
class Read:
    """All rows of a packing; `places` says of each input where in the stream it stands, -1 of padding."""

    inputs: npt.NDArray[Any]
    targets: npt.NDArray[Any]
    places: npt.NDArray[Any]


def read_all(rows: DocumentRows, tokens: int) -> Read:
    numbers = np.arange(len(rows), dtype=np.uint64)
    inputs, targets = rows.read(numbers)
    counting = TokenStream([np.arange(_PLACES, _PLACES + tokens)])
    (folder,) = (cache_folder() / "packing").glob(f"[!.]*-train-{rows.window}")
    places = DocumentRows(counting, END, folder, rows.packing).read(numbers).inputs - _PLACES
    return Read(inputs, targets, np.where(places >= 0, places, -1))


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "lengths": draw(st.lists(st.integers(0, 40), min_size=1, max_size=30)),
        "shard_tokens": draw(st.integers(1, 200)),
        "head": draw(st.sampled_from([0, 0, 1, 9])),
        "window": draw(st.integers(1, 20)),
        "portion": draw(st.sampled_from([1, 4, 1 << 18])),
    }


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(case=cases())
def test_every_token_is_an_input_once_and_a_row_tells_documents_apart(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_PORTION", case["portion"])
    window = case["window"]
    shutil.rmtree(cache_folder(), ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_corpus(Path(folder), case["lengths"], case["shard_tokens"], case["head"])
        stream = corpus.stream("train").read(0, corpus.train.tokens)
        rows = document_rows(corpus, "train", window)
        read = read_all(rows, len(stream))
    assert read.inputs.shape == read.targets.shape == (len(rows), window)

    real = read.places >= 0
    assert sorted(read.places[real].tolist()) == list(range(len(stream)))
    assert np.array_equal(read.inputs[real], stream[read.places[real]])
    assert np.array_equal(read.targets[real], np.append(stream, END)[read.places[real] + 1])
    assert (read.inputs[~real] == END).all()
    assert (read.targets[~real] == IGNORED).all()
    assert real.any(axis=1).all()

    # What a model sees as one document, by the end-of-text in a row, is one.
    of_place = np.cumsum(stream == END)
    for row in range(len(rows)):
        seen, true = np.cumsum(read.inputs[row] == END)[real[row]], of_place[read.places[row][real[row]]]
        assert np.array_equal(seen[:, None] == seen, true[:, None] == true)

    sizes = [length + 1 for length in case["lengths"]] + ([case["head"]] if case["head"] else [])
    assert rows.packing.documents == len(sizes)
    assert rows.packing.cut == sum(size > window for size in sizes)
    assert rows.packing.padding == (~real).sum()


def test_a_document_is_cut_only_where_it_must_be(tmp_path: Path) -> None:
    lengths = [3, 30, 7, 1, 0, 20, 6]
    rows = document_rows(write_corpus(tmp_path, lengths), "train", 8)
    read = read_all(rows, rows.packing.tokens)
    ends = np.cumsum([length + 1 for length in lengths])
    for start, size in zip(ends - [length + 1 for length in lengths], [length + 1 for length in lengths], strict=True):
        pieces = sorted(
            {
                (row, tuple(place[(place >= start) & (place < start + size)].tolist()))
                for row, place in enumerate(read.places)
                if ((place >= start) & (place < start + size)).any()
            },
            key=lambda piece: piece[1],
        )
        assert [len(places) for _, places in pieces] == [8] * (size // 8) + ([size % 8] if size % 8 else [])
        for _, places in pieces:
            assert list(places) == list(range(places[0], places[-1] + 1))


def test_any_rows_can_be_asked_for_in_any_order(tmp_path: Path) -> None:
    rows = document_rows(write_corpus(tmp_path, list(range(30))), "train", 16)
    all_rows = rows.read(np.arange(len(rows), dtype=np.uint64))
    asked = np.asarray([5, 0, 5, len(rows) - 1], dtype=np.uint64)
    some = rows.read(asked)
    assert np.array_equal(some.inputs, all_rows.inputs[asked])
    assert np.array_equal(some.targets, all_rows.targets[asked])


def test_what_was_cut_and_padded_is_said_and_the_index_is_made_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path, [9, 3, 3, 21])
    rows = document_rows(corpus, "train", 10)
    # Documents of 10, 4, 4 and 22: three full rows; 4 and 4; and 2 behind an end-of-text, for which no row has room.
    said = capsys.readouterr().err
    assert "packing documents: done" in said
    assert "4 documents in 5 rows of 10 tokens: 1 of them (25.0%) are longer" in said
    assert rows.packing.padding == 10
    assert "10 tokens (20.00%) are padding" in str(rows.packing)
    again = document_rows(corpus, "train", 10)
    assert capsys.readouterr().err == f"{rows.packing}\n"
    assert again.packing == rows.packing


def test_each_corpus_and_window_has_an_index_of_its_own(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one, other = write_corpus(tmp_path / "one", [5, 6]), write_corpus(tmp_path / "other", [5, 7])
    before = {path: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    for corpus, window in ((one, 8), (other, 8), (one, 9)):
        rows = document_rows(corpus, "train", window)
        assert (rows.window, rows.packing.tokens) == (window, corpus.train.tokens)
    assert len(list((cache_folder() / "packing").glob("[!.]*"))) == 3
    assert {path: path.read_bytes() for path in (tmp_path / "one").iterdir()} == before


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["header.json", "pieces.bin", "rows.bin"])
@pytest.mark.parametrize("damage", [flip, Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])])
def test_a_damaged_index_is_made_again_aloud(
    tmp_path: Path, name: str, damage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path, list(range(20)))
    numbers = np.arange(5, dtype=np.uint64)
    before = document_rows(corpus, "train", 8).read(numbers)
    (folder,) = (cache_folder() / "packing").glob("[!.]*")
    damage(folder / name)
    capsys.readouterr()
    after = document_rows(corpus, "train", 8).read(numbers)
    said = capsys.readouterr().err
    assert name in said
    assert "packing the documents again" in said
    assert np.array_equal(before.inputs, after.inputs)


def test_a_process_waits_for_another_that_packs_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write_corpus(tmp_path, [5, 6, 7])
    document_rows(corpus, "train", 8)
    (lock,) = (cache_folder() / "packing").glob(".*.lock")
    found: list[DocumentRows] = []
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = threading.Thread(target=lambda: found.append(document_rows(corpus, "train", 8)))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        fcntl.flock(held, fcntl.LOCK_UN)
        waiting.join(10)
    assert len(found) == 1
    assert "waiting for another process" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DAYBREAK_CACHE", str(tmp_path / "file"))
    corpus = write_corpus(tmp_path, [5])
    with pytest.raises(UserError, match="set DAYBREAK_CACHE"):
        document_rows(corpus, "train", 8)


def test_a_split_without_documents_is_one_line(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, [])
    with pytest.raises(UserError, match="no train documents"):
        document_rows(corpus, "train", 8)
