"""The corpus on disk: written over many shards, read as one stream, and never silently wrong."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from daybreak.data.shards import Corpus, TokenStream, documents_file, token_dtype, write_manifest
from daybreak.data.tokenizer import byte_tokenizer, character_tokenizer
from daybreak.errors import UserError
from daybreak.files import read_sealed, write_sealed
from shard_writer import ShardWriter

END = 256
SHARD_TOKENS = 50
DOCUMENTS = ["a" * 130, "bc", "", "d" * 49, "e" * 48, "f" * 200, "g"]


def write_split(folder: Path, name: str, texts: list[str], shard_tokens: int = SHARD_TOKENS) -> Any:
    writer = ShardWriter(folder, name, token_dtype(257), shard_tokens)
    for text in texts:
        writer.start_document(END)
        for start in range(0, len(text), 70):
            part = text[start : start + 70].encode()
            writer.write(np.frombuffer(part, np.uint8), len(part))
    return writer.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A corpus whose documents run over several shards."""
    made = tmp_path / "made"
    made.mkdir()
    splits = {"train": write_split(made, "train", DOCUMENTS), "validation": write_split(made, "validation", ["xyz"])}
    write_manifest(made, byte_tokenizer(), splits, ["nowhere"])
    return made


def expected_tokens() -> list[int]:
    return [token for text in DOCUMENTS for token in (END, *text.encode())]


def test_documents_that_straddle_shards_are_one_stream(folder: Path) -> None:
    corpus = Corpus.open(folder)
    stream = corpus.stream("train")
    expected = expected_tokens()
    assert len(corpus.train.shards) == -(-len(expected) // SHARD_TOKENS)
    assert [shard.tokens for shard in corpus.train.shards[:-1]] == [SHARD_TOKENS] * (len(corpus.train.shards) - 1)
    assert len(stream) == len(expected)
    assert stream.read(0, len(stream)).tolist() == expected


def test_any_part_of_the_stream_equals_the_part_of_one_array(folder: Path) -> None:
    stream, whole = Corpus.open(folder).stream("train"), np.asarray(expected_tokens())
    for start in range(0, len(whole) + 1, 7):
        for stop in range(start, len(whole) + 1, 11):
            part = stream.read(start, stop)
            assert part.dtype == np.int64
            assert np.array_equal(part, whole[start:stop])


def test_shards_of_any_size_and_none_make_one_stream() -> None:
    generator = np.random.default_rng(0)
    whole = generator.integers(0, 1000, 500)
    cuts = sorted(generator.integers(0, 500, 12))
    stream = TokenStream(list(np.split(whole, cuts)))
    for _ in range(300):
        start, stop = sorted(int(place) for place in generator.integers(0, 501, 2))
        assert np.array_equal(stream.read(start, stop), whole[start:stop])
    assert len(TokenStream([])) == 0
    assert TokenStream([]).read(0, 0).tolist() == []


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2), (0, 501), (501, 501)])
def test_reading_outside_the_stream_is_an_error(start: int, stop: int) -> None:
    with pytest.raises(IndexError, match="of a stream of 500"):
        TokenStream([np.arange(500)]).read(start, stop)


def test_totals_and_offsets_are_those_of_the_documents(folder: Path) -> None:
    corpus = Corpus.open(folder)
    assert corpus.train.documents == len(DOCUMENTS)
    assert corpus.train.tokens == len(expected_tokens())
    assert corpus.train.bytes == sum(map(len, DOCUMENTS))
    assert (corpus.validation.tokens, corpus.validation.documents, corpus.validation.bytes) == (4, 1, 3)
    found, begins = [], 0
    for shard in corpus.train.shards:
        starts = np.fromfile(folder / documents_file(shard.file), "<u8")
        assert len(starts) == shard.documents
        found += [begins + int(start) for start in starts]
        begins += shard.tokens
    assert found == [place for place, token in enumerate(expected_tokens()) if token == END]


def test_tokens_on_disk_are_little_endian_and_nothing_else(folder: Path) -> None:
    raw = b"".join(path.read_bytes() for path in sorted(folder.glob("train-*[0-9].bin")))
    assert raw == b"".join(token.to_bytes(2, "little") for token in expected_tokens())


def test_a_shard_size_changes_only_where_shards_are_cut(tmp_path: Path) -> None:
    streams = []
    for size in (1, 2, 3, 64, 10_000):
        made = tmp_path / str(size)
        made.mkdir()
        split = write_split(made, "train", DOCUMENTS, size)
        streams.append([np.fromfile(made / shard.file, "<u2").tolist() for shard in split.shards])
    joined = [[token for shard in shards for token in shard] for shards in streams]
    assert [len(shards) for shards in streams] == [-(-len(expected_tokens()) // size) for size in (1, 2, 3, 64, 10_000)]
    assert joined == [expected_tokens()] * 5


def test_a_split_without_documents_has_no_shards_and_no_files(tmp_path: Path) -> None:
    split = write_split(tmp_path, "train", [])
    assert (split.tokens, split.documents, split.bytes, split.shards) == (0, 0, 0, ())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("vocab_size", "code"), [(1, "<u2"), (257, "<u2"), (50_257, "<u2"), (65_536, "<u2"), (65_537, "<u4")]
)
def test_ids_are_kept_in_the_smallest_type_that_holds_them(vocab_size: int, code: str) -> None:
    dtype = token_dtype(vocab_size)
    assert dtype.str == code
    assert np.iinfo(dtype).max >= vocab_size - 1


def test_ids_above_65535_come_back_whole(tmp_path: Path) -> None:
    wide = token_dtype(70_000)
    ids: npt.NDArray[Any] = np.asarray([0, 65_535, 65_536, 69_999])
    writer = ShardWriter(tmp_path, "train", wide, 3)
    writer.start_document(69_999)
    writer.write(ids, 4)
    split = writer.close()
    stream = TokenStream([np.fromfile(tmp_path / shard.file, "<u4") for shard in split.shards])
    assert stream.read(0, 5).tolist() == [69_999, 0, 65_535, 65_536, 69_999]


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


FILES = ["train-00000.bin", "train-00003.bin", "train-00000.documents.bin", "validation-00000.bin"]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_named(name: str, folder: Path) -> None:
    _flip(folder / name, random.Random(name).randrange((folder / name).stat().st_size))
    with pytest.raises(UserError, match=name):
        Corpus.open(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", [-1, 1, 2])
def test_a_file_of_another_length_is_named(name: str, change: int, folder: Path) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:change] if change < 0 else content + b"\0" * change)
    with pytest.raises(UserError, match=name):
        Corpus.open(folder)


@pytest.mark.parametrize("name", [*FILES, "tokenizer.json", "manifest.json"])
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=name):
        Corpus.open(folder)


def test_all_that_is_wrong_is_told_where_it_is_asked_for_and_only_there(folder: Path) -> None:
    assert list(Corpus.open(folder).problems()) == []
    wrong = ["train-00001.bin", "train-00002.documents.bin", "validation-00000.bin"]
    _flip(folder / wrong[0], 10)
    (folder / wrong[1]).unlink()
    (folder / wrong[2]).write_bytes((folder / wrong[2]).read_bytes()[:-1])
    problems = list(Corpus.open_unverified(folder).problems())
    assert len(problems) == 3
    assert all(str(folder / name) in problem for name, problem in zip(wrong, problems, strict=True))
    with pytest.raises(UserError, match=wrong[0]):
        Corpus.open(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "manifest.json"])
def test_a_corpus_that_is_not_verified_still_needs_its_manifest_and_tokenizer(name: str, folder: Path) -> None:
    truth = (folder / name).read_bytes()
    (folder / name).write_bytes(truth[:-4])
    with pytest.raises(UserError, match=name):
        Corpus.open_unverified(folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=name):
        Corpus.open_unverified(folder)


def test_swapped_shards_are_named(folder: Path) -> None:
    first, second = folder / "train-00000.bin", folder / "train-00001.bin"
    kept = first.read_bytes()
    assert len(kept) == second.stat().st_size
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    with pytest.raises(UserError, match="train-00000"):
        Corpus.open(folder)


def test_another_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").write_text(json.dumps(character_tokenizer(["abc"]).to_json()))
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        Corpus.open(folder)


def test_a_damaged_tokenizer_is_named(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"YQ=="', '"Yg=="', 1))
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        Corpus.open(folder)


def _another_format(manifest: Any) -> None:
    manifest["format"] = 2


def _no_validation(manifest: Any) -> None:
    del manifest["splits"]["validation"]


def _no_tokenizer(manifest: Any) -> None:
    del manifest["tokenizer"]


def _unknown_dtype(manifest: Any) -> None:
    manifest["dtype"] = "tokens"


def _wider_dtype(manifest: Any) -> None:
    manifest["dtype"] = "<u4"


def _wrong_total_of_tokens(manifest: Any) -> None:
    manifest["splits"]["train"]["tokens"] += 1


def _wrong_total_of_documents(manifest: Any) -> None:
    manifest["splits"]["train"]["documents"] += 1


def _lost_shard(manifest: Any) -> None:
    del manifest["splits"]["train"]["shards"][2]


def _wrong_hash(manifest: Any) -> None:
    manifest["splits"]["train"]["shards"][0]["sha256"] = "0" * 64


def _unknown_key(manifest: Any) -> None:
    manifest["splits"]["train"]["shards"][0]["colour"] = "red"


def _splits_as_list(manifest: Any) -> None:
    manifest["splits"] = []


@pytest.mark.parametrize(
    "damage",
    [
        _another_format,
        _no_validation,
        _no_tokenizer,
        _unknown_dtype,
        _wider_dtype,
        _wrong_total_of_tokens,
        _wrong_total_of_documents,
        _lost_shard,
        _wrong_hash,
        _unknown_key,
        _splits_as_list,
    ],
)
def test_a_manifest_that_is_wrong_is_refused(damage: Callable[[Any], None], folder: Path) -> None:
    path = folder / "manifest.json"
    manifest = read_sealed(path)
    damage(manifest)
    write_sealed(path, manifest)
    with pytest.raises(UserError, match=str(folder)) as caught:
        Corpus.open(folder)
    assert "seal" not in str(caught.value)


def test_no_flipped_bit_of_a_manifest_goes_unseen(folder: Path) -> None:
    path = folder / "manifest.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place // 7 % 8]) + whole[place + 1 :])
        with pytest.raises(UserError, match=r"manifest\.json"):
            Corpus.open(folder)
    path.write_bytes(whole)
    Corpus.open(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe"])
def test_a_manifest_that_is_none_is_refused_and_named(content: bytes, folder: Path) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=r"manifest\.json"):
        Corpus.open(folder)


@pytest.mark.parametrize("name", ["../x", "../made/train-00000.bin", "sub/train-00000.bin", "/etc/passwd", ".."])
def test_a_shard_outside_the_corpus_is_refused(name: str, folder: Path) -> None:
    shutil.copy(folder / "train-00000.bin", folder.parent / "x")
    shutil.copy(folder / "train-00000.documents.bin", folder.parent / "x.documents.bin")
    path = folder / "manifest.json"
    manifest = read_sealed(path)
    manifest["splits"]["train"]["shards"][0]["file"] = name
    write_sealed(path, manifest)
    with pytest.raises(UserError, match=r"leads out of the corpus|\.\. is missing") as caught:
        Corpus.open(folder)
    assert str(folder) in str(caught.value)


def test_a_folder_that_is_no_corpus_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(UserError, match=r"not a corpus: it has no manifest\.json; daybreak prepare makes one"):
        Corpus.open(Path("empty"))


@pytest.mark.parametrize("cuts", [[], [300], [100, 101, 350]])
def test_rows_are_read_at_once_as_one_by_one(cuts: list[int]) -> None:
    whole = np.arange(500, dtype=np.uint16)
    stream = TokenStream(list(np.split(whole, cuts)))
    for starts in ([0, 90, 7], [301, 480, 400], [450]):
        expected = [whole[start : start + 20] for start in starts]
        assert np.array_equal(stream.read_rows(np.array(starts, dtype=np.uint64), 20), expected)
    with pytest.raises(IndexError):
        stream.read_rows(np.array([481], dtype=np.uint64), 20)
