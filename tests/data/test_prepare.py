"""Preparing: what is in the corpus, where it is split, and what is left when something goes wrong."""

import json
import os
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from daybreak.data.inspection import describe
from daybreak.data.prepare import prepare
from daybreak.data.shards import Corpus, documents_file
from daybreak.data.tokenizer import Tokenizer, character_tokenizer
from daybreak.errors import UserError


def write_jsonl(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


def made_up_texts(count: int, seed: int = 0) -> list[str]:
    """Texts that all differ, of very different lengths, and hold the spelling of end-of-text."""
    generator = random.Random(seed)
    words = ["Tag", "day", "日", "🌍", "<|endoftext|>", "light\n", "x", "2024", "..."]
    return [f"{n}: " + " ".join(generator.choices(words, k=generator.randrange(1, 80))) for n in range(count)]


def documents_of(corpus: Corpus, split: str) -> list[str]:
    """The documents as the offsets on disk cut them."""
    tokens, starts = [], []
    for shard in corpus.split(split).shards:
        starts += [len(tokens) + int(s) for s in np.fromfile(corpus.path / documents_file(shard.file), "<u8")]
        tokens += np.fromfile(corpus.path / shard.file, "<u2").tolist()
    end = corpus.tokenizer.end_of_text
    assert starts[:1] == [0]
    assert [place for place, token in enumerate(tokens) if token == end] == starts
    ends = [*starts[1:], len(tokens)]
    return [corpus.tokenizer.decode(tokens[start + 1 : stop]) for start, stop in zip(starts, ends, strict=True)]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("tokenizer", ["bytes", "chars", "bpe:300"])
def test_one_end_of_text_stands_in_front_of_each_document(tokenizer: str, tmp_path: Path) -> None:
    texts = made_up_texts(60)
    corpus = prepare([write_jsonl(tmp_path / "a.jsonl", texts)], tmp_path / "out", tokenizer=tokenizer)
    train, validation = documents_of(corpus, "train"), documents_of(corpus, "validation")
    assert sorted(train + validation) == sorted(texts)
    assert not set(train) & set(validation)
    assert train
    assert validation


def test_documents_keep_their_order_across_sources(tmp_path: Path) -> None:
    texts = made_up_texts(50)
    sources = [write_jsonl(tmp_path / "b.jsonl", texts[:20]), write_jsonl(tmp_path / "a.jsonl", texts[20:])]
    corpus = prepare(sources, tmp_path / "out", tokenizer="bytes")
    for split in ("train", "validation"):
        places = [texts.index(text) for text in documents_of(corpus, split)]
        assert places == sorted(places)


def test_the_same_documents_are_kept_for_validation_with_any_tokenizer(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", made_up_texts(60))
    kept = [
        documents_of(prepare([source], tmp_path / str(number), tokenizer=tokenizer), "validation")
        for number, tokenizer in enumerate(["bytes", "chars", "bpe:300"])
    ]
    assert kept[0] == kept[1] == kept[2]


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])
def test_the_share_of_validation_is_about_what_was_asked_for(share: float, tmp_path: Path) -> None:
    texts = [f"document {number}" for number in range(4000)]
    source = write_jsonl(tmp_path / "a.jsonl", texts)
    corpus = prepare([source], tmp_path / "out", tokenizer="bytes", validation=share)
    spread = (4000 * share * (1 - share)) ** 0.5
    assert abs(corpus.validation.documents - 4000 * share) < 4 * spread
    assert corpus.train.documents + corpus.validation.documents == 4000


@pytest.mark.parametrize("count", range(2, 12))
@pytest.mark.parametrize("share", [0.001, 0.999])
def test_neither_split_is_empty_however_few_documents_there_are(count: int, share: float, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [f"document {number}" for number in range(count)])
    corpus = prepare([source], tmp_path / "out", tokenizer="bytes", validation=share)
    assert corpus.train.documents >= 1
    assert corpus.validation.documents >= 1
    assert corpus.train.documents + corpus.validation.documents == count


@pytest.mark.parametrize("characters", [10, 999, 1000, 12_345])
def test_a_single_document_is_split_at_its_tail_where_nanogpt_splits_it(characters: int, tmp_path: Path) -> None:
    generator = random.Random(characters)
    text = "".join(generator.choice("abc é🌍\n") for _ in range(characters - 1)) + "."
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    corpus = prepare([str(tmp_path / "a.txt")], tmp_path / "out", tokenizer="chars")
    (train,), (validation,) = documents_of(corpus, "train"), documents_of(corpus, "validation")
    assert train == text[: int(0.9 * len(text))]
    assert validation == text[int(0.9 * len(text)) :]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_a_single_document_of_many_pieces_loses_nothing(
    share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daybreak.data.documents._PIECE", 50)
    text = "one two three " * 400
    (tmp_path / "a.txt").write_text(text)
    corpus = prepare([str(tmp_path / "a.txt")], tmp_path / "out", tokenizer="bytes", validation=share)
    (train,), (validation,) = documents_of(corpus, "train"), documents_of(corpus, "validation")
    assert train + validation == text
    assert len(validation) == pytest.approx(share * len(text), abs=1)


def test_a_single_document_split_between_two_pieces_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the place of the split, also where a piece ends exactly there."""
    monkeypatch.setattr("daybreak.data.documents._PIECE", 3)
    (tmp_path / "a.txt").write_text("ab cd ef gh ij kl")
    for percent in range(5, 95, 5):
        out = tmp_path / str(percent)
        corpus = prepare([str(tmp_path / "a.txt")], out, tokenizer="bytes", validation=percent / 100)
        (train,), (validation,) = documents_of(corpus, "train"), documents_of(corpus, "validation")
        assert train + validation == "ab cd ef gh ij kl"


def test_shakespeare_is_split_as_nanogpt_splits_it(test_data: Path, tmp_path: Path) -> None:
    path = test_data / "tinyshakespeare/input.txt"
    corpus = prepare([str(path)], tmp_path / "out", tokenizer="chars")
    assert corpus.tokenizer.vocab_size == 65 + 1
    assert corpus.train.tokens - 1 == 1_003_854  # nanoGPT data/shakespeare_char/prepare.py
    assert corpus.validation.tokens - 1 == 111_540


def test_shakespeare_in_gpt2_tokens_counts_as_published(
    test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(test_data / "gpt2_bpe/tiktoken_cache"))
    corpus = prepare([str(test_data / "tinyshakespeare/input.txt")], tmp_path / "out", tokenizer="gpt2")
    assert corpus.train.tokens - 1 == 301_966  # nanoGPT data/shakespeare/readme.md
    assert corpus.validation.tokens - 1 == 36_059


def test_the_manifest_counts_documents_tokens_and_bytes_of_text(tmp_path: Path) -> None:
    texts = made_up_texts(40)
    source = write_jsonl(tmp_path / "a.jsonl", texts)
    corpus = prepare([source], tmp_path / "out", tokenizer="bytes")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["sources"] == [source]
    assert manifest["tokenizer"] == corpus.tokenizer.identity
    for split in ("train", "validation"):
        kept = documents_of(corpus, split)
        size = sum(len(text.encode()) for text in kept)
        counts = {key: manifest["splits"][split][key] for key in ("documents", "tokens", "bytes")}
        assert counts == {"documents": len(kept), "tokens": size + len(kept), "bytes": size}


def test_the_summary_states_the_same_counts(tmp_path: Path) -> None:
    corpus = prepare([write_jsonl(tmp_path / "a.jsonl", made_up_texts(40))], tmp_path / "out", tokenizer="bytes")
    summary = describe(corpus)
    assert f"{corpus.train.tokens:,} tokens" in summary
    assert f"{corpus.validation.documents:,} documents" in summary
    assert summary.count("1.00 bytes a token") == 2


def test_text_of_one_document_never_runs_into_the_next(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", ["ab"] * 100)
    corpus = prepare([source], tmp_path / "out", tokenizer="bpe:400")
    assert b"abab" not in corpus.tokenizer.ranks
    assert documents_of(corpus, "train") == ["ab"] * corpus.train.documents


def test_a_bpe_learns_nothing_from_validation(tmp_path: Path) -> None:
    words = ["".join(letters) for letters in zip("abcdefghijklmnopqrst", "ABCDEFGHIJKLMNOPQRST", strict=True)]
    source = write_jsonl(tmp_path / "a.jsonl", [f"{word} " * 50 for word in words])
    corpus = prepare([source], tmp_path / "out", tokenizer="bpe:2000", validation=0.3)
    for text in documents_of(corpus, "train"):
        assert text[:2].encode() in corpus.tokenizer.ranks
    for text in documents_of(corpus, "validation"):
        assert text[:2].encode() not in corpus.tokenizer.ranks


def test_characters_are_learned_from_all_text_so_that_validation_can_be_encoded(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [chr(0x4E00 + number) for number in range(50)])
    corpus = prepare([source], tmp_path / "out", tokenizer="chars", validation=0.3)
    assert corpus.tokenizer.vocab_size == 51


def test_a_corpus_lends_its_tokenizer_to_another(tmp_path: Path) -> None:
    first = prepare([write_jsonl(tmp_path / "a.jsonl", made_up_texts(40))], tmp_path / "one", tokenizer="bpe:300")
    other = write_jsonl(tmp_path / "b.jsonl", made_up_texts(10, seed=1))
    second = prepare([other], tmp_path / "two", tokenizer=str(tmp_path / "one"))
    assert second.tokenizer.identity == first.tokenizer.identity


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe:400"])
def test_preparing_again_gives_the_same_bytes_in_any_process(tokenizer: str, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", made_up_texts(200))
    prepare([source], tmp_path / "one", tokenizer=tokenizer)
    program = (
        "import sys; from pathlib import Path; from daybreak.data.prepare import prepare; "
        "prepare([sys.argv[1]], Path(sys.argv[2]), tokenizer=sys.argv[3])"
    )
    subprocess.run(
        [sys.executable, "-c", program, source, str(tmp_path / "two"), tokenizer],
        env={**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "1", "TZ": "Asia/Tokyo"},
        check=True,
        capture_output=True,
    )
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_a_killed_preparation_leaves_no_trace_in_the_next(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", made_up_texts(20))
    leftover = tmp_path / ".out.partial"
    leftover.mkdir()
    (leftover / "train-00007.bin").write_bytes(b"from a run that was killed")
    prepare([source], tmp_path / "out", tokenizer="bytes")
    prepare([source], tmp_path / "clean", tokenizer="bytes")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "clean")
    assert not leftover.exists()


def test_sources_without_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(" \n")
    (tmp_path / "b.jsonl").write_text("")
    with pytest.raises(UserError, match=r"no text.*a\.txt.*b\.jsonl"):
        prepare([str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl")], tmp_path / "out", tokenizer="bytes")
    assert not (tmp_path / "out").exists()


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone"):
        prepare([str(tmp_path / "gone")], tmp_path / "out", tokenizer="bytes")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        prepare([write_jsonl(tmp_path / "a.jsonl", ["text"])], tmp_path / "out", tokenizer="bytes")
    assert files_of(tmp_path / "out") == {"mine.txt": b"mine"}


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 10.0, float("nan")])
def test_a_share_of_validation_that_is_none_is_refused(share: float, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", ["text", "more"])
    with pytest.raises(UserError, match="--val"):
        prepare([source], tmp_path / "out", tokenizer="bytes", validation=share)


def _fail_at_call(number: int, error: BaseException, function: Callable[..., object]) -> Callable[..., object]:
    calls = 0

    def failing(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls == number:
            raise error
        return function(*args)

    return failing


@pytest.mark.parametrize("error", [RuntimeError("torn"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_nothing_is_left_behind_when_preparing_fails_in_the_middle(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", made_up_texts(30))
    monkeypatch.setattr(Tokenizer, "encode", _fail_at_call(20, error, Tokenizer.encode))
    expected = UserError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected, match="no space" if isinstance(error, OSError) else None):
        prepare([source], tmp_path / "out", tokenizer="bytes")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_bad_line_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n{"text": 2}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:2"):
        prepare([str(path)], tmp_path / "out", tokenizer="bytes")
    assert [each.name for each in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", made_up_texts(30))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(UserError, match="no space"):
        prepare([source], tmp_path / "out", tokenizer="bytes")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "size"), [("one document", 30_000_000), ("many documents", 12_000_000)])
def test_memory_does_not_grow_with_the_text(layout: str, size: int, tmp_path: Path) -> None:
    line = "the window that is shuffled is the window that is counted\n"
    path = tmp_path / ("a.txt" if layout == "one document" else "a.jsonl")
    unit = line if layout == "one document" else json.dumps({"text": line * 1000}) + "\n"
    with path.open("w") as file:
        file.writelines(unit for _ in range(size // len(unit)))
    (tmp_path / "tokenizer.json").write_text(json.dumps(character_tokenizer([line]).to_json()))
    tracemalloc.start()
    try:
        corpus = prepare([str(path)], tmp_path / "out", tokenizer=str(tmp_path / "tokenizer.json"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert corpus.train.bytes + corpus.validation.bytes > 0.95 * size
    assert peak < 0.8 * size
