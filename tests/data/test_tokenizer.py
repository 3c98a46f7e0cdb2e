"""Tokenizers, against published vectors and against the library that trains BPE."""

import json
import sysconfig
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from daybreak.data.tokenizer import (
    END_OF_TEXT,
    Tokenizer,
    byte_tokenizer,
    character_tokenizer,
    gpt2_tokenizer,
    make_tokenizer,
    train_bpe,
)
from daybreak.errors import UserError

BPE_SIZE = 1000
BYTES = byte_tokenizer()


def source_code(first: int, last: int) -> list[str]:
    """Modules of the standard library: text that every machine has."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[first:last]
    return [path.read_text(encoding="utf-8", errors="replace") for path in files]


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return train_bpe(iter(source_code(0, 25)), BPE_SIZE)


@pytest.fixture
def gpt2(test_data: Path, monkeypatch: pytest.MonkeyPatch) -> Tokenizer:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(test_data / "gpt2_bpe/tiktoken_cache"))
    return gpt2_tokenizer()


def test_gpt2_encodes_every_published_vector(gpt2: Tokenizer, test_data: Path) -> None:
    lines = (test_data / "reference/gpt2_bpe_vectors.jsonl").read_text(encoding="utf-8").splitlines()
    vectors = [json.loads(line) for line in lines]
    assert len(vectors) == 116
    for vector in vectors:
        assert gpt2.encode(vector["text"]).tolist() == vector["ids"], vector["source"]
        assert gpt2.decode(vector["ids"]) == vector["text"]


def test_gpt2_has_50257_ids_and_ends_text_with_the_last(gpt2: Tokenizer) -> None:
    assert gpt2.vocab_size == 50_257
    assert gpt2.end_of_text == 50_256
    assert gpt2.decode([50_256]) == END_OF_TEXT


def test_gpt2_table_is_the_published_vocabulary(gpt2: Tokenizer, test_data: Path) -> None:
    published = json.loads((test_data / "gpt2_bpe/encoder.json").read_text(encoding="utf-8"))
    assert len(gpt2.ranks) == len(published) - 1
    ascii_only = {token: rank for token, rank in published.items() if all("!" <= letter <= "~" for letter in token)}
    ours = {token.decode("latin-1"): rank for token, rank in gpt2.ranks.items()} | dict(gpt2.specials)
    assert len(ascii_only) > 10_000
    assert {token: ours[token] for token in ascii_only} == ascii_only


@settings(deadline=None)
@given(st.text())
def test_bytes_are_the_utf8_of_the_text(text: str) -> None:
    ids = BYTES.encode(text).tolist()
    assert bytes(ids) == text.encode()
    assert BYTES.decode(ids) == text


@settings(deadline=None)
@given(st.text(min_size=1))
def test_characters_are_numbered_in_code_point_order_and_come_back(text: str) -> None:
    tokenizer = character_tokenizer([text])
    alphabet = sorted(set(text))
    ids = tokenizer.encode(text).tolist()
    assert ids == [alphabet.index(character) for character in text]
    assert tokenizer.decode(ids) == text
    assert tokenizer.end_of_text == len(alphabet) == tokenizer.vocab_size - 1


def test_characters_are_gathered_from_all_texts() -> None:
    tokenizer = character_tokenizer(["ba", "", "é"])
    assert tokenizer.encode("éab").tolist() == [2, 0, 1]


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_a_trained_bpe_gives_any_text_back(bpe: Tokenizer, text: str) -> None:
    assert bpe.decode_bytes(bpe.encode(text)) == text.encode()


def test_a_trained_bpe_encodes_as_the_library_that_trained_it(bpe: Tokenizer) -> None:
    library = tokenizers.Tokenizer(tokenizers.models.BPE())
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=BPE_SIZE - 1,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(source_code(0, 25), trainer)
    unseen = source_code(25, 40)
    assert sum(map(len, unseen)) > 100_000
    for text in unseen:
        assert bpe.encode(text).tolist() == library.encode(text).ids


def test_a_trained_bpe_has_the_size_that_was_asked_for_and_compresses(bpe: Tokenizer) -> None:
    text = source_code(25, 26)[0]
    assert bpe.vocab_size == BPE_SIZE
    assert bpe.name == f"bpe:{BPE_SIZE}"
    assert len(bpe.encode(text)) < len(text) / 1.5


def test_a_text_with_nothing_to_merge_gives_a_smaller_vocabulary() -> None:
    assert train_bpe(iter(["abab"]), 5000).vocab_size == 256 + 2 + 1  # ab, abab


def test_training_is_the_same_each_time(bpe: Tokenizer) -> None:
    assert train_bpe(iter(source_code(0, 25)), BPE_SIZE).identity == bpe.identity


def test_a_bpe_too_small_for_all_bytes_is_refused() -> None:
    assert train_bpe(iter(["aaaa"]), 257).vocab_size == 257
    with pytest.raises(UserError, match=r"bpe:256 is too small.*bpe:257"):
        train_bpe(iter(["aaaa"]), 256)


@pytest.mark.parametrize("kind", ["bytes", "chars", "bpe"])
def test_text_that_spells_a_special_token_is_text(bpe: Tokenizer, kind: str) -> None:
    text = f"before {END_OF_TEXT}{END_OF_TEXT} after"
    tokenizer = {"bytes": BYTES, "chars": character_tokenizer([text]), "bpe": bpe}[kind]
    ids = tokenizer.encode(text).tolist()
    assert tokenizer.end_of_text not in ids
    assert tokenizer.decode(ids) == text


def test_gpt2_takes_text_that_spells_its_special_token_as_text(gpt2: Tokenizer) -> None:
    ids = gpt2.encode(END_OF_TEXT).tolist()
    assert gpt2.end_of_text not in ids
    assert ids == [27, 91, 437, 1659, 5239, 91, 29]  # as openai/gpt-2's own encoder, which knows no special tokens


def test_a_million_blanks_are_encoded() -> None:
    text = "a" + " " * 1_200_000 + "b"
    assert bytes(BYTES.encode(text).tolist()) == text.encode()


def test_each_id_stands_for_its_bytes_of_text(bpe: Tokenizer) -> None:
    text = "def naïve(): return '🌍'"
    assert int(bpe.token_bytes[bpe.encode(text)].sum()) == len(text.encode())
    assert bpe.token_bytes[bpe.end_of_text] == 0
    assert bpe.token_bytes.shape == (bpe.vocab_size,)


def test_bytes_cut_inside_a_character_decode_to_a_replacement() -> None:
    assert BYTES.decode("é!".encode()[1:]) == "\ufffd!"


def test_identity_is_of_the_content_and_not_of_the_name() -> None:
    tokenizer = BYTES
    swapped = {**tokenizer.ranks, b"a": tokenizer.ranks[b"b"], b"b": tokenizer.ranks[b"a"]}
    others = [
        replace(tokenizer, pattern=tokenizer.pattern + "|x"),
        replace(tokenizer, ranks=swapped),
        replace(tokenizer, specials={END_OF_TEXT: 257}),
        replace(tokenizer, specials={"<|end|>": 256}),
    ]
    assert replace(tokenizer, name="octets").identity == tokenizer.identity
    assert len({tokenizer.identity, *(other.identity for other in others)}) == 5


def test_identity_does_not_hang_on_the_order_of_the_table() -> None:
    tokenizer = BYTES
    backwards = dict(reversed(list(tokenizer.ranks.items())))
    assert replace(tokenizer, ranks=backwards).identity == tokenizer.identity


def test_a_saved_tokenizer_is_read_back_the_same(bpe: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(bpe.to_json()))
    read = Tokenizer.load(path)
    assert read.identity == bpe.identity
    assert read.encode("import this").tolist() == bpe.encode("import this").tolist()
    assert (read.name, read.vocab_size, read.end_of_text) == (bpe.name, bpe.vocab_size, bpe.end_of_text)


def _swap_two_ranks(value: Any) -> None:
    value["ranks"][65][1], value["ranks"][66][1] = 66, 65


def _change_the_pattern(value: Any) -> None:
    value["pattern"] = r"\S+"


def _move_the_special_token(value: Any) -> None:
    value["specials"][END_OF_TEXT] = 300


def _drop_a_key(value: Any) -> None:
    del value["ranks"]


def _spoil_base64(value: Any) -> None:
    value["ranks"][0][0] = "A"


def _write_another_format(value: Any) -> None:
    value["format"] = 99


@pytest.mark.parametrize(
    "damage",
    [
        _swap_two_ranks,
        _change_the_pattern,
        _move_the_special_token,
        _drop_a_key,
        _spoil_base64,
        _write_another_format,
    ],
)
def test_a_damaged_tokenizer_file_is_refused_and_named(damage: Any, tmp_path: Path) -> None:
    value = json.loads(json.dumps(BYTES.to_json()))
    damage(value)
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(value))
    with pytest.raises(UserError, match=r"mine\.json"):
        Tokenizer.load(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '"text"', "\x00\x01"])
def test_a_file_that_is_no_tokenizer_is_refused_and_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"mine\.json"):
        Tokenizer.load(path)


def test_an_unknown_character_is_named() -> None:
    tokenizer = character_tokenizer(["abc"])
    with pytest.raises(UserError, match=r"no token for 'd', 'é'"):
        tokenizer.encode("abédc")


def test_no_characters_or_too_many_are_refused() -> None:
    with pytest.raises(UserError, match="no text"):
        character_tokenizer(["", ""])
    many = "".join(map(chr, range(0x10000, 0x10000 + 0x10000)))
    with pytest.raises(UserError, match=r"65,536 distinct characters.*bpe:4096"):
        character_tokenizer([many])
    assert character_tokenizer([many[1:]]).vocab_size == 0x10000


@pytest.mark.parametrize("error", [ConnectionError("unreachable"), TimeoutError(), ValueError("Hash mismatch")])
def test_without_a_network_gpt2_says_what_to_do(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def get_encoding(name: str) -> tiktoken.Encoding:
        raise error

    monkeypatch.setattr(tiktoken, "get_encoding", get_encoding)
    with pytest.raises(UserError, match=r"TIKTOKEN_CACHE_DIR.*--tokenizer bpe:4096"):
        gpt2_tokenizer()


def unread() -> Iterator[str]:
    """Text that must not be read."""
    raise AssertionError("the text was read")
    yield ""


def test_make_tokenizer_knows_every_kind_by_name(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(character_tokenizer(["xyz"]).to_json()))
    assert make_tokenizer("bytes", unread()).vocab_size == 257
    assert make_tokenizer("chars", iter(["ab"])).vocab_size == 3
    assert make_tokenizer("bpe:258", iter(["abab"])).vocab_size == 258
    assert make_tokenizer(str(tmp_path), unread()).vocab_size == 4
    assert make_tokenizer(str(tmp_path / "tokenizer.json"), unread()).vocab_size == 4


@pytest.mark.parametrize("name", ["gpt3", "bpe", "bpe:", "bpe:4k", "bpe:-5", "", "BYTES"])
def test_an_unknown_tokenizer_is_refused_with_those_there_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="bytes, chars, gpt2, bpe:SIZE"):
        make_tokenizer(name, unread())


def test_no_token_joins_letters_and_digits(bpe: Tokenizer) -> None:
    texts = [token.decode("utf-8", errors="ignore") for token in bpe.ranks]
    assert sum(text.isalpha() for text in texts) > 300
    for text in texts:
        assert len({character.isalpha() for character in text if character.isalnum()}) <= 1, text
