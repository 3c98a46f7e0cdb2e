"""Looking into a corpus: each figure against one counted by hand or by brute force, each warning against its cause."""

import json
import math
import random
import re
import shutil
import string
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daybreak import cli
from daybreak.data.document_starts import DocumentStarts, measure_lengths, spread
from daybreak.data.inspection import document, inspect_corpus, window
from daybreak.data.inspection_page import printable, shown
from daybreak.data.prepare import prepare
from daybreak.data.shards import Corpus, token_dtype, write_manifest
from daybreak.data.tokenizer import Tokenizer, byte_tokenizer, character_tokenizer, train_bpe
from daybreak.errors import UserError
from daybreak.files import read_sealed, sha256_file, write_json, write_sealed
from made_text import write_documents
from shard_writer import ShardWriter

END = 256


def make_corpus(
    folder: Path,
    train: list[bytes],
    validation: list[bytes],
    tokenizer: Tokenizer | None = None,
    shard_tokens: int = 2000,
) -> Corpus:
    """A corpus of documents, in shards so small that documents run over several."""
    known = tokenizer or byte_tokenizer()
    folder.mkdir(parents=True)
    splits = {}
    for name, documents in (("train", train), ("validation", validation)):
        writer = ShardWriter(folder, name, token_dtype(known.vocab_size), shard_tokens)
        for content in documents:
            writer.start_document(known.end_of_text)
            writer.write(known.encode(content.decode()), len(content))
        splits[name] = writer.close()
    write_manifest(folder, known, splits, ["nowhere"])
    return Corpus.open(folder)


@cache
def lexicon() -> list[str]:
    """Two thousand words, of letters about as often as in English."""
    generator = random.Random(0)
    letters = "eeeeeeeeeeeetttttttttaaaaaaaaooooooooiiiiiiinnnnnnnsssssshhhhhhrrrrrrddddllllcccuuummmwwwffggyyppbbvk"
    return ["".join(generator.choices(letters, k=generator.randrange(1, 9))) for _ in range(2000)]


def words_at_random(number: int, seed: int = 0) -> str:
    """Some words often and most of them rarely, as Zipf has it."""
    weights = [1 / (rank + 1) for rank in range(2000)]
    return " ".join(random.Random(seed).choices(lexicon(), weights, k=number))


def texts_at_random(number: int, words: int = 200) -> list[bytes]:
    return [words_at_random(words, seed).encode() for seed in range(number)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    documents = [b"aab", b"", b"a" * 120, b"bc \xc3\xa9", b"c" * 30]
    return make_corpus(tmp_path_factory.mktemp("plain") / "corpus", documents, [b"held out"], shard_tokens=50)


def test_counts_and_common_tokens_are_those_counted_by_hand(plain: Corpus) -> None:
    found = inspect_corpus(plain)
    tokens = 5 + 3 + 0 + 120 + 5 + 30
    assert found.counts["train"].tokens == found.sampled == tokens
    assert found.counts["train"].bytes == 158
    assert found.counts["train"].bytes_per_token == 1.0
    assert (found.counts["validation"].tokens, found.counts["validation"].documents) == (9, 1)
    shares = {each.content: each.share for each in found.commonest}
    assert shares[b"a"] == 122 / tokens
    assert shares[b"c"] == 31 / tokens
    assert shares[b"<|endoftext|>"] == found.end_of_text == 5 / tokens
    assert [each.content for each in found.commonest[:3]] == [b"a", b"c", b"<|endoftext|>"]
    assert found.distinct == len(set(b"aabbc \xc3\xa9c"))
    counts = Counter(b"aab" + b"a" * 120 + b"bc \xc3\xa9" + b"c" * 30)
    entropy = -sum(count / 158 * math.log2(count / 158) for count in counts.values())
    assert found.entropy == pytest.approx(entropy)
    assert found.tokenizer.unused == 256 - len({*b"aabbc \xc3\xa9c", *b"held out"})


def test_lengths_are_those_counted_by_hand(plain: Corpus) -> None:
    lengths = inspect_corpus(plain).lengths
    assert lengths is not None
    assert lengths.documents == 5
    assert lengths.mean == (4 + 1 + 121 + 6 + 31) / 5
    assert lengths.quantiles == {0: 1, 10: 1, 50: 6, 90: 121, 99: 121, 100: 121}
    assert lengths.histogram == {1: 1, 4: 2, 16: 1, 64: 1}
    assert lengths.tiny == 1 / 5


@pytest.mark.parametrize("shard_tokens", [1, 3, 7, 50, 10_000])
def test_documents_lie_where_their_end_of_text_is_however_shards_are_cut(shard_tokens: int, tmp_path: Path) -> None:
    documents = [
        bytes(random.Random(number).choices(string.ascii_letters.encode(), k=number * 5 % 23)) for number in range(30)
    ]
    corpus = make_corpus(tmp_path / "corpus", documents, [b"x"], shard_tokens=shard_tokens)
    expected = [0]
    for content in documents:
        expected.append(expected[-1] + 1 + len(content))
    starts = DocumentStarts(corpus, "train")
    for first in range(len(documents)):
        for stop in range(first + 1, len(documents) + 1):
            assert starts.read(first, stop).tolist() == expected[first : stop + 1]
    for number, content in enumerate(documents):
        found = document(corpus, number)
        assert (found.first, found.text) == (expected[number], "<|endoftext|>" + content.decode())
    with pytest.raises(IndexError):
        starts.read(0, 31)


@pytest.mark.parametrize(("total", "sample", "at_once"), [(10, 100, 3), (100, 100, 7), (101, 20, 5), (10_007, 100, 10)])
def test_a_sample_is_all_or_as_much_as_was_asked_for_evenly_spread(total: int, sample: int, at_once: int) -> None:
    ranges = spread(total, sample, at_once)
    numbers = [number for first, stop in ranges for number in range(first, stop)]
    assert len(numbers) == len(set(numbers)) == min(total, sample)
    assert 0 <= min(numbers) < max(numbers) < total
    gaps = {later[0] - earlier[0] for earlier, later in pairwise(ranges)}
    assert not gaps or max(gaps) - min(gaps) <= (1 if total > sample else 0)


def test_a_large_corpus_is_judged_by_a_sample_that_says_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = make_corpus(tmp_path / "corpus", texts_at_random(100), [b"held out"], shard_tokens=10_000)
    whole = inspect_corpus(corpus)
    monkeypatch.setattr("daybreak.data.token_sample._SAMPLE", 20_000)
    monkeypatch.setattr("daybreak.data.token_sample._AT_ONCE", 500)
    monkeypatch.setattr("daybreak.data.document_starts._SAMPLE", 50)
    monkeypatch.setattr("daybreak.data.document_starts._AT_ONCE", 5)
    part = inspect_corpus(corpus)
    assert part.sampled == 20_000 < whole.sampled == corpus.train.tokens
    assert part.lengths is not None
    assert whole.lengths is not None
    assert part.lengths.documents == 50
    assert part.entropy == pytest.approx(whole.entropy, rel=0.02)
    assert part.lengths.mean == pytest.approx(whole.lengths.mean, rel=0.05)
    assert f"20,000 evenly spread ones of {corpus.train.tokens:,} tokens" in shown(part)
    assert "50 evenly spread ones of 100 documents" in shown(part)
    assert f"all {corpus.train.tokens:,} tokens" in shown(whole)


def repeated_by_brute_force(documents: list[bytes]) -> float:
    windows = [content[place : place + 32] for content in documents for place in range(0, len(content) - 31, 32)]
    return 1 - len(set(windows)) / len(windows)


@pytest.mark.parametrize("copies", [1, 2, 5])
def test_repeated_windows_are_those_that_come_again(
    copies: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daybreak.data.token_sample._AT_ONCE", 1 << 20)  # documents are cut where a reading ends
    documents = texts_at_random(20) * copies + [b"short", b"z" * 320]
    random.Random(0).shuffle(documents)
    found = inspect_corpus(make_corpus(tmp_path / "corpus", documents, [b"held out"], shard_tokens=1_000_000))
    assert found.repeated == pytest.approx(repeated_by_brute_force(documents))


def test_windows_and_excerpts_are_the_text_of_their_tokens(plain: Corpus) -> None:
    tokens = plain.stream("train").read(0, plain.train.tokens).tolist()
    for size in (50, 64, 1000):
        for number in range(-(-len(tokens) // size)):
            part = tokens[number * size : (number + 1) * size]
            found = window(plain, number, size=size)
            assert (found.first, found.tokens) == (number * size, len(part))
            assert found.text == byte_tokenizer().decode(part)
    for excerpt in inspect_corpus(plain, excerpts=5, seed=3).excerpts:
        assert excerpt.text == byte_tokenizer().decode(tokens[excerpt.first : excerpt.first + excerpt.tokens])
        assert excerpt.tokens == 100


def test_excerpts_are_chosen_by_the_seed(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", texts_at_random(5), [b"held out"])
    first, again, other = (inspect_corpus(corpus, seed=seed).excerpts for seed in (1, 1, 2))
    assert first == again
    assert not {each.first for each in first} & {each.first for each in other}
    assert inspect_corpus(corpus, excerpts=0).excerpts == ()


@pytest.mark.parametrize(("find", "number", "said"), [
    (window, 4, "4 windows of 50 tokens in train, numbered from 0: no 4"),
    (window, -1, "no -1"),
    (document, 5, "5 documents in train, numbered from 0: no 5"),
])  # fmt: skip
def test_what_is_not_there_is_refused(find: Callable[..., Any], number: int, said: str, plain: Corpus) -> None:
    with pytest.raises(UserError, match=said):
        find(plain, number, **({"size": 50} if find is window else {}))


# The tokenizer at work.


def test_bytes_a_token_are_those_of_text_that_was_learned_from_and_of_text_that_was_not(tmp_path: Path) -> None:
    train, held_out = texts_at_random(30), [words_at_random(300, seed=99).encode(), b"Quite Other Words: 12345"]
    tokenizer = train_bpe((text.decode() for text in train), 600)
    report = inspect_corpus(make_corpus(tmp_path / "corpus", train, held_out, tokenizer)).tokenizer
    ids = {"train": [tokenizer.encode(text.decode()) for text in train]}
    ids["held_out"] = [tokenizer.encode(text.decode()) for text in held_out]
    for documents, figure in ((train, report.bytes_per_token), (held_out, report.held_out_bytes_per_token)):
        tokens = sum(len(tokenizer.encode(text.decode())) for text in documents)
        assert figure == sum(map(len, documents)) / tokens
    assert report.held_out_bytes_per_token < report.bytes_per_token
    used = {int(index) for pieces in ids.values() for piece in pieces for index in piece}
    assert report.unused == 600 - 1 - len(used)
    assert report.unused_merged == len(set(range(256, 599)) - used)
    assert (report.ids, report.merged) == (600, 343)


@pytest.mark.parametrize("kind", ["bytes", "chars", "bpe"])
def test_the_tokenizer_that_made_the_tokens_agrees_with_them(kind: str, tmp_path: Path) -> None:
    texts = ["naïve 🌍 " + text.decode() for text in texts_at_random(40)]
    tokenizer = {"bytes": byte_tokenizer(), "chars": character_tokenizer(texts), "bpe": train_bpe(iter(texts), 500)}[
        kind
    ]
    corpus = make_corpus(tmp_path / "corpus", [text.encode() for text in texts], [texts[0].encode()], tokenizer)
    assert inspect_corpus(corpus).tokenizer.agreement > 0.995


def test_tokens_of_another_tokenizer_disagree(tmp_path: Path) -> None:
    texts = [text.decode() for text in texts_at_random(40)]
    made_with, claimed = (
        train_bpe(iter(texts), 500),
        train_bpe(iter([words_at_random(9000)[::-1]]), 500),
    )
    corpus = make_corpus(tmp_path / "made", [text.encode() for text in texts], [b"x"], made_with)
    shutil.copytree(corpus.path, tmp_path / "claimed")
    manifest = read_sealed(corpus.path / "manifest.json")
    write_json(tmp_path / "claimed/tokenizer.json", claimed.to_json())
    manifest |= {"tokenizer": claimed.identity, "tokenizer_sha256": sha256_file(tmp_path / "claimed/tokenizer.json")}
    write_sealed(tmp_path / "claimed/manifest.json", manifest)
    found = inspect_corpus(Corpus.open(tmp_path / "claimed"))
    assert found.tokenizer.agreement < 0.9
    assert any("another tokenizer than bpe:500 made them" in each for each in found.warnings)


# Warnings.


def test_text_as_it_should_be_gives_no_warning(tmp_path: Path) -> None:
    """Made-up words as bytes and as characters, and the source of the standard library as a BPE."""
    source = str(write_documents(tmp_path))
    for number, tokenizer in enumerate(("bytes", "chars")):
        assert inspect_corpus(prepare([source], tmp_path / str(number), tokenizer=tokenizer)).warnings == ()
    files = [str(path) for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:60]]
    assert inspect_corpus(prepare(files, tmp_path / "code", tokenizer="bpe:2000")).warnings == ()


@pytest.mark.parametrize("tokenizer", ["chars", "bytes", "bpe:4096"])
def test_shakespeare_gives_no_warning(tokenizer: str, test_data: Path, tmp_path: Path) -> None:
    source = str(test_data / "tinyshakespeare/input.txt")
    assert inspect_corpus(prepare([source], tmp_path / "corpus", tokenizer=tokenizer)).warnings == ()


def bpe_of(texts: list[bytes], size: int) -> Tokenizer:
    return train_bpe((text.decode() for text in texts), size)


def mostly_one_token(folder: Path) -> Corpus:
    documents = [b" pad" * 300 + text for text in texts_at_random(20)]
    return make_corpus(folder, documents, [b"held out"], bpe_of(documents, 600))


def mostly_one_byte(folder: Path) -> Corpus:
    return make_corpus(folder, [text.replace(b" ", b" " * 20) for text in texts_at_random(20)], [b"held out"])


def few_ids(folder: Path) -> Corpus:
    generator = random.Random(0)
    return make_corpus(folder, ["".join(generator.choices("ACGT", k=5000)).encode()], [b"ACGT"])


def low_entropy(folder: Path) -> Corpus:
    generator = random.Random(0)
    signs = string.ascii_letters[:4] * 300 + string.printable
    return make_corpus(folder, ["".join(generator.choices(signs, k=20_000)).encode()], [b"abcde"])


def wrongly_decoded(folder: Path) -> Corpus:
    return make_corpus(
        folder, [text.replace(b"e", "\ufffd".encode(), 3) for text in texts_at_random(20)], [b"held out"]
    )


def another_language(folder: Path) -> Corpus:
    generator = random.Random(0)
    documents = ["".join(chr(generator.randrange(0x4E00, 0x5E00)) for _ in range(400)).encode() for _ in range(20)]
    return make_corpus(folder, documents, documents[:1], bpe_of(texts_at_random(5), 1000))


def numbers_at_random(folder: Path) -> Corpus:
    generator = random.Random(0)
    documents = ["".join(generator.choices(string.printable[:94], k=2000)).encode() for _ in range(20)]
    return make_corpus(folder, documents, documents[:1], bpe_of([words_at_random(20_000).encode()], 2000))


def unused_ids(folder: Path) -> Corpus:
    return make_corpus(
        folder, texts_at_random(2), [b"held out"], bpe_of([words_at_random(20_000, seed=5).encode()], 2000)
    )


def two_kinds(folder: Path) -> Corpus:
    documents = texts_at_random(20)
    return make_corpus(folder, documents, [b"QWXZ 0987 " * 50], bpe_of(documents, 800))


def tiny_documents(folder: Path) -> Corpus:
    return make_corpus(folder, [*texts_at_random(20), b"a", b"", b"b"], [b"held out"])


def repeated_documents(folder: Path) -> Corpus:
    return make_corpus(folder, [*texts_at_random(20), *texts_at_random(4)], [b"held out"])


def no_text(folder: Path) -> Corpus:
    return make_corpus(folder, [b""] * 20, [b"held out"])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (mostly_one_token, r"\d\d% of the tokens are one, ' pad'"),
        (mostly_one_byte, r"\d\d% of the tokens are one, ' '"),
        (few_ids, "only 4 distinct tokens"),
        (low_entropy, r"only 2\.\d bits of entropy"),
        (wrongly_decoded, r"0\.\d% of the characters are U\+FFFD"),
        (another_language, "single bytes beyond ASCII"),
        (numbers_at_random, r"a token stands for 1\.\d\d bytes only"),
        (unused_ids, "merged ids never come"),
        (two_kinds, "they are of different kinds"),
        (tiny_documents, "13% of the documents have one token or none"),
        (repeated_documents, r"1\d% of all runs of 32 tokens have come before"),
        (no_text, "there is no text"),
    ],
)
def test_tokens_that_look_degenerate_give_their_warning(
    make: Callable[[Path], Corpus], said: str, tmp_path: Path
) -> None:
    found = inspect_corpus(make(tmp_path / "corpus"))
    assert any(re.search(said, each) for each in found.warnings), found.warnings
    assert re.search(said, shown(found).partition("## Warnings")[2])


# The page.


def with_report(folder: Path, report: dict[str, Any]) -> Corpus:
    corpus = make_corpus(folder, texts_at_random(5), [b"held out"])
    write_json(folder / "report.json", report)
    manifest = read_sealed(folder / "manifest.json")
    write_sealed(folder / "manifest.json", {**manifest, "report_sha256": sha256_file(folder / "report.json")})
    return Corpus.open(corpus.path)


REPORT = {
    "sources": [
        {"name": "dump.jsonl", "documents": 1200, "bytes": 3_456_789},
        {"name": "a|b", "documents": 1, "bytes": 9},
    ],
    "dropped": {"too short": 12, "seen before": 1100},
    "seconds": 3,
}


def test_the_page_says_what_went_in_and_what_was_dropped(tmp_path: Path) -> None:
    page = shown(inspect_corpus(with_report(tmp_path / "corpus", REPORT)))
    assert re.search(r"^\| dump\.jsonl +\| +1,200 \| +3\.46 \|$", page, flags=re.MULTILINE)
    assert "a\\|b" in page
    assert page.index("seen before") < page.index("too short")  # the commonest reason first
    assert re.search(r"^\| seen before +\| +1,100 \|$", page, flags=re.MULTILINE)
    assert "Nothing." in shown(inspect_corpus(with_report(tmp_path / "other", {**REPORT, "dropped": {}})))


def test_a_corpus_without_a_report_says_so(plain: Corpus) -> None:
    page = shown(inspect_corpus(plain))
    assert "| nowhere |" in page
    assert "This corpus does not say." in page


def test_a_report_counts_only_by_its_hash(tmp_path: Path) -> None:
    corpus = with_report(tmp_path / "corpus", REPORT)
    write_json(corpus.path / "report.json", {**REPORT, "dropped": {}})
    with pytest.raises(UserError, match=r"report\.json is damaged"):
        inspect_corpus(corpus)
    (corpus.path / "report.json").unlink()
    with pytest.raises(UserError, match=r"report\.json is missing"):
        inspect_corpus(corpus)
    foreign = make_corpus(tmp_path / "foreign", texts_at_random(2), [b"x"])
    write_json(foreign.path / "report.json", REPORT)
    assert inspect_corpus(foreign).dropped is None


@pytest.mark.parametrize("report", [{}, {"sources": [], "dropped": 3}, {"sources": [{"name": "x"}], "dropped": {}}])
def test_a_report_that_is_none_is_named(report: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"report\.json is not a report"):
        inspect_corpus(with_report(tmp_path / "corpus", report))


def test_equal_corpora_have_equal_pages_wherever_they_lie(plain: Corpus, tmp_path: Path) -> None:
    shutil.copytree(plain.path, tmp_path / "moved")
    assert shown(inspect_corpus(Corpus.open(tmp_path / "moved"))) == shown(inspect_corpus(plain))


def test_the_rows_of_each_table_are_of_one_width(tmp_path: Path) -> None:
    page = shown(inspect_corpus(with_report(tmp_path / "corpus", REPORT)))
    tables = [block.splitlines() for block in page.split("\n\n") if block.startswith("|")]
    assert len(tables) == 6
    for table in tables:
        assert len({len(row) for row in table}) == 1
        assert re.fullmatch(r"\|( (-+|-+:) \|)+", table[1])


def test_blanks_are_seen_and_control_characters_are_harmless(tmp_path: Path) -> None:
    text = ("a b\n\x1b[2J\x07\x9b" * 30).encode()
    found = inspect_corpus(make_corpus(tmp_path / "corpus", [text], [b"x"]))
    page = shown(found)
    assert "' '" in page
    assert r"'\n'" in page
    assert r"'\x1b'" in page
    assert not {sign for sign in page if not sign.isprintable()} - {"\n"}
    assert printable("a\tb\nc\x1b[0m\x7f\u202e") == "a\tb\nc\\x1b[0m\\x7f\\u202e"


def run(*words: str | Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["daybreak", "inspect", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return int(ended.value.code or 0)


def test_the_verb_prints_the_page_a_window_a_document_or_json(
    plain: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(plain.path) == 0
    assert capsys.readouterr().out == shown(inspect_corpus(plain))
    assert run(plain.path, "--document", "0") == 0
    assert capsys.readouterr().out == "<|endoftext|>aab\n"
    assert run(plain.path, "--window", "1", "--size", "2") == 0
    assert capsys.readouterr().out == "ab\n"
    assert run(plain.path, "--document", "0", "--split", "validation") == 0
    assert capsys.readouterr().out == "<|endoftext|>held out\n"
    assert run(plain.path, "--json", "--samples", "1") == 0
    value = json.loads(capsys.readouterr().out)
    assert value["counts"]["train"]["tokens"] == plain.train.tokens
    assert value["commonest"][0]["content"] == "a"
    assert len(value["excerpts"]) == 1
    assert run(plain.path, "--window", "1", "--size", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"first": 2, "tokens": 2, "text": "ab"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--split", "test"], "train and validation"),
        (["--window", "1", "--document", "2"], "exclude each other"),
        (["--window", "1000"], "no 1,000"),
    ],
)
def test_the_verb_refuses_what_makes_no_sense(
    words: list[str], said: str, plain: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(plain.path, *words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train-00001.bin", "train-00000.documents.bin"])
@pytest.mark.parametrize("damage", ["gone", "cut", "wrong"])
def test_a_damaged_corpus_is_one_message(name: str, damage: str, plain: Corpus, tmp_path: Path) -> None:
    shutil.copytree(plain.path, tmp_path / "copy")
    path = tmp_path / "copy" / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-2] if damage == "cut" else b"\xff" * len(content))
    with pytest.raises(UserError, match=r"missing|damaged"):
        inspect_corpus(Corpus.open_unverified(tmp_path / "copy"))


def test_lengths_that_cannot_be_are_an_error(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", [b"one", b"two", b"three"], [b"x"], shard_tokens=1000)
    np.asarray([0, 9, 4], dtype="<u8").tofile(corpus.path / "train-00000.documents.bin")
    with pytest.raises(UserError, match="do not start one behind the other"):
        measure_lengths(DocumentStarts(corpus, "train"))
