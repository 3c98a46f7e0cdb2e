"""Tokenizers out to transformers and in from it: the same ids for any text, or a reason."""

import json
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as Theirs
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from daybreak.data.tokenizer import (
    END_OF_TEXT,
    Tokenizer,
    byte_tokenizer,
    character_tokenizer,
    gpt2_tokenizer,
    train_bpe,
)
from daybreak.errors import UserError
from daybreak.exchange.tokenizer_in import read_tokenizer
from daybreak.exchange.tokenizer_out import write_tokenizer
from daybreak.files import read_json, write_json

ODD = [
    "",
    " ",
    "\n\n  \t\r\n   end  ",
    "<|endoftext|>",
    "before<|endoftext|><|endoftext|> after",
    "I'll SHOULDN'T 'tis it's",
    "日本語 한국어 ไทย العربية हिन्दी",
    "\U0001f469\u200d\U0001f467 \U0001f1f3\U0001f1f1\ufe0f \U0001f600",
    "e\u0301 \u00e9 \ufb01 \u00a0\u2003\u200b\ufeff\u0085\x00\x7f\x1c\x1f\u180e",
    "½ Ⅷ ² ٣ 12345",
    "\U000e0041\U0010ffff \ue000",
]
CHARACTERS = "".join(sorted(set("".join(ODD)) | set("\n abcdefghijklmnopqrstuvwxyz")))


def source_code() -> list[str]:
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:20]
    return [path.read_text(encoding="utf-8", errors="replace") for path in files]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [*ODD, *source_code()]


@pytest.fixture(scope="module", params=["bytes", "chars", "bpe"])
def ours(request: pytest.FixtureRequest, texts: list[str]) -> Tokenizer:
    if request.param == "bytes":
        return byte_tokenizer()
    return character_tokenizer(texts) if request.param == "chars" else train_bpe(iter(texts), 600)


@pytest.fixture
def folder(ours: Tokenizer, tmp_path: Path) -> Path:
    write_tokenizer(tmp_path, ours, 128)
    return tmp_path


def test_the_same_ids_and_the_same_text(ours: Tokenizer, folder: Path, texts: list[str]) -> None:
    theirs = AutoTokenizer.from_pretrained(folder)
    assert theirs.model_max_length == 128
    for text in texts:
        ids = theirs(text).input_ids
        assert ids == ours.encode(text).tolist(), text[:40]
        assert theirs.decode(ids) == ours.decode(ids) == text
    assert [theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id] == [ours.end_of_text] * 3
    assert theirs.decode([ours.end_of_text]) == END_OF_TEXT
    assert len(theirs) == ours.vocab_size


def test_the_special_token_is_read_in_text_only_if_asked(ours: Tokenizer, folder: Path) -> None:
    theirs = PreTrainedTokenizerFast.from_pretrained(folder, split_special_tokens=False)
    assert theirs(END_OF_TEXT).input_ids == [ours.end_of_text]


def test_a_token_that_text_may_spell_is_read_there_too(ours: Tokenizer, tmp_path: Path) -> None:
    ours = ours.with_specials(["<|user|>", "<|bot|>"])
    write_tokenizer(tmp_path, ours, 128)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("<|user|>", "i<|user|><|bot|> am <|endoftext|>", "<|user| |bot|>"):
        assert theirs(text).input_ids == ours.encode(text).tolist()
        assert theirs.decode(ours.encode(text)) == text
    theirs.save_pretrained(tmp_path / "saved")
    for folder in (tmp_path, tmp_path / "saved"):
        assert read_tokenizer(folder, "again", ours.end_of_text).identity == ours.identity


def test_it_comes_in_as_it_was(ours: Tokenizer, folder: Path) -> None:
    assert read_tokenizer(folder, "again", ours.end_of_text).identity == ours.identity


def test_it_comes_in_after_transformers_saved_it(ours: Tokenizer, folder: Path, tmp_path: Path) -> None:
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    assert read_tokenizer(tmp_path / "saved", "again", ours.end_of_text).identity == ours.identity


def test_a_character_without_a_token_is_an_error_there_too(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, character_tokenizer(["abc"]), 8)
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert theirs("cab").input_ids == [2, 0, 1]
    with pytest.raises(Exception, match=r"Missing \[UNK\] token"):
        theirs("cabs")


def test_two_files_as_gpt2_came_in(tmp_path: Path) -> None:
    changed(tmp_path)
    content = read_json(tmp_path / "tokenizer.json")
    identity = read_tokenizer(tmp_path, "one", None).identity
    (tmp_path / "tokenizer.json").unlink()
    write_json(tmp_path / "vocab.json", content["model"]["vocab"] | {END_OF_TEXT: content["added_tokens"][0]["id"]})
    lines = ["#version: 0.2", *map(" ".join, content["model"]["merges"])]
    (tmp_path / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    assert read_tokenizer(tmp_path, "two", None).identity == identity


@pytest.mark.slow
def test_gpt2_comes_in_from_both_forms_as_tiktoken_has_it(test_data: Path, tmp_path: Path) -> None:
    """The published files, and what we write; every published vector."""
    gpt2 = gpt2_tokenizer()
    for name, file in (("vocab.json", "encoder.json"), ("merges.txt", "vocab.bpe")):
        (tmp_path / name).write_bytes((test_data / "gpt2_bpe" / file).read_bytes())
    assert read_tokenizer(tmp_path, "gpt2", 50_256).identity == gpt2.identity
    write_tokenizer(tmp_path, gpt2, 1024)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    lines = (test_data / "reference/gpt2_bpe_vectors.jsonl").read_text(encoding="utf-8").splitlines()
    for vector in map(json.loads, lines):
        assert theirs(vector["text"]).input_ids == vector["ids"], vector["source"]
    (tmp_path / "vocab.json").unlink()
    assert read_tokenizer(tmp_path, "gpt2", None).identity == gpt2.identity


@pytest.mark.slow
def test_no_code_point_is_encoded_otherwise(test_data: Path, tmp_path: Path) -> None:
    """tiktoken's regular expressions and those of `tokenizers` know the same letters, numbers and blanks."""
    gpt2 = gpt2_tokenizer()
    write_tokenizer(tmp_path, gpt2, 1024)
    theirs = Theirs.from_file(str(tmp_path / "tokenizer.json"))
    texts = [f"a{c} {c}1 {c}{c}\n" for c in map(chr, range(0x110000)) if not "\ud800" <= c <= "\udfff"]
    for text, encoded in zip(texts, theirs.encode_batch(texts, add_special_tokens=False), strict=True):
        assert gpt2.encode(text).tolist() == encoded.ids, hex(ord(text[1]))


def changed(folder: Path, **parts: Any) -> Path:
    """A byte-level BPE with some parts of its file changed."""
    write_tokenizer(folder, train_bpe(iter(["the cat sat on the mat " * 3]), 262), 8)
    content = read_json(folder / "tokenizer.json")
    for key, value in parts.items():
        part, _, inner = key.partition("__")
        if inner:
            content[part][inner] = value
        else:
            content[part] = value
    write_json(folder / "tokenizer.json", content)
    return folder


EXTRA = {
    "content": "<extra>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"model__type": "Unigram"}, "it is Unigram"),
        ({"model__byte_fallback": True}, "byte_fallback"),
        ({"normalizer": {"type": "NFC"}}, "NFC"),
        ({"pre_tokenizer": {"type": "Metaspace", "replacement": "_"}}, "Metaspace"),
        ({"pre_tokenizer__add_prefix_space": True}, "a space in front"),
        ({"pre_tokenizer__use_regex": False}, "across words"),
        ({"added_tokens": [EXTRA | {"id": 261, "special": False, "lstrip": True}]}, "reads '<extra>' in text in a way"),
        ({"added_tokens": [EXTRA | {"id": 261, "special": False, "content": "a b"}]}, "reads 'a b' in text in a way"),
        ({"added_tokens": [EXTRA | {"id": 261, "special": True}]}, "does not say which token ends"),
        ({"model": {"type": "WordLevel", "vocab": {"ab": 0}, "unk_token": "?"}}, "a list of words"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_ours_cannot_be_is_refused_with_the_reason(parts: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason):
        read_tokenizer(changed(tmp_path, **parts), "its", None)


def test_merges_in_another_order_than_their_ids_are_refused(tmp_path: Path) -> None:
    merges = read_json(changed(tmp_path) / "tokenizer.json")["model"]["merges"]
    with pytest.raises(UserError, match="order of their ids"):
        read_tokenizer(changed(tmp_path, model__merges=merges[::-1]), "its", None)


def test_a_pattern_of_its_own_comes_in_where_both_take_it_alike(tmp_path: Path) -> None:
    """As Llama 3 and Qwen split text: numbers by threes, contractions in any case."""
    words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    pattern = words + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    folder = changed(tmp_path, pre_tokenizer={"type": "Sequence", "pretokenizers": [split, level]})
    ours = read_tokenizer(folder, "its", None)
    theirs = Theirs.from_file(str(folder / "tokenizer.json"))
    assert ours.pattern == pattern
    assert np.array_equal(ours.encode("the cat's 1234567"), theirs.encode("the cat's 1234567").ids)


def test_the_token_that_ends_a_text_becomes_ours(tmp_path: Path) -> None:
    special = [EXTRA | {"id": rank, "content": name, "special": True} for rank, name in ((261, "</s>"), (262, "<s>"))]
    folder = changed(tmp_path, added_tokens=special)
    assert read_tokenizer(folder, "its", 261).specials == {"<s>": 262, END_OF_TEXT: 261}
    with pytest.raises(UserError, match="is not a special one"):
        read_tokenizer(folder, "its", 3)


def test_no_tokenizer_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither a tokenizer\.json nor"):
        read_tokenizer(tmp_path, "its", None)
