"""Special tokens that text may spell: their ids, the bytes they stand for, and what stays text."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiktoken

from daybreak.data.prepare import prepare
from daybreak.data.tokenizer import END_OF_TEXT, Tokenizer, byte_tokenizer, make_tokenizer
from daybreak.errors import UserError

USER, ASSISTANT = "<|user|>", "<|assistant|>"
TEXT = f"{USER}Who comes?{ASSISTANT} Ünser {END_OF_TEXT} day.\n"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return byte_tokenizer().with_specials([USER, ASSISTANT])


def test_their_ids_lie_above_the_others(tokenizer: Tokenizer) -> None:
    assert (tokenizer.specials[USER], tokenizer.specials[ASSISTANT]) == (257, 258)
    assert tokenizer.vocab_size == 259


def test_text_that_spells_them_is_them_and_end_of_text_is_still_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT).tolist()
    assert ids == [257, *b"Who comes?", 258, *f" Ünser {END_OF_TEXT} day.\n".encode()]
    reference = tiktoken.Encoding(
        "reference",
        pat_str=tokenizer.pattern,
        mergeable_ranks=dict(tokenizer.ranks),
        special_tokens={USER: 257, ASSISTANT: 258},
    )
    assert ids == reference.encode(TEXT, allowed_special="all")
    assert byte_tokenizer().encode(TEXT).tolist() == list(TEXT.encode())


def test_what_ids_stand_for_adds_up_to_the_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT)
    assert tokenizer.decode(ids) == TEXT
    assert int(tokenizer.token_bytes[ids].sum()) == len(TEXT.encode())
    assert tokenizer.token_bytes[tokenizer.end_of_text] == 0


def test_it_is_another_tokenizer_that_extends_its_base(tokenizer: Tokenizer, tmp_path: Path) -> None:
    base = byte_tokenizer()
    assert tokenizer.identity != base.identity
    assert tokenizer.extends(base)
    assert not base.extends(tokenizer)
    assert base.with_specials([]).identity == base.identity
    assert base.with_specials([ASSISTANT, USER]).identity != tokenizer.identity
    assert not base.with_specials([ASSISTANT, USER]).extends(tokenizer)
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer.to_json()))
    read = Tokenizer.load(tmp_path / "tokenizer.json")
    assert read.identity == tokenizer.identity
    assert read.encode(TEXT).tolist() == tokenizer.encode(TEXT).tolist()


@pytest.mark.parametrize("names", [[""], ["a b"], [USER, USER], [END_OF_TEXT]])
def test_names_that_cannot_be(names: list[str]) -> None:
    with pytest.raises(UserError, match="special token"):
        byte_tokenizer().with_specials(names)


@pytest.mark.parametrize("name", ["chars", "bpe:300"])
def test_nothing_is_learned_of_them(name: str) -> None:
    texts = [f"{USER}aab aab{ASSISTANT}aab"] * 50
    learned = make_tokenizer(name, iter(texts), [USER, ASSISTANT])
    assert not any((b"|" in token and len(token) > 1) or b"user" in token for token in learned.ranks)
    assert learned.decode(learned.encode(texts[0])) == texts[0]
    assert learned.specials[USER] in learned.encode(texts[0])


def test_a_corpus_holds_them(tmp_path: Path) -> None:
    (tmp_path / "chat.txt").write_text(TEXT * 30)
    corpus = prepare([str(tmp_path / "chat.txt")], tmp_path / "chat", tokenizer="bytes", specials=[USER, ASSISTANT])
    assert corpus.tokenizer.name == f"bytes+{USER}+{ASSISTANT}"
    tokens = np.concatenate(
        [stream.read(0, len(stream)) for stream in (corpus.stream("train"), corpus.stream("validation"))]
    )
    assert int((tokens == 257).sum()) == 30
    assert corpus.train.bytes + corpus.validation.bytes == 30 * len(TEXT.encode())
    assert int(corpus.tokenizer.token_bytes[tokens].sum()) == 30 * len(TEXT.encode())
    again = prepare([str(tmp_path / "chat.txt")], tmp_path / "again", tokenizer=str(tmp_path / "chat"))
    assert again.tokenizer.identity == corpus.tokenizer.identity


@pytest.mark.parametrize("names", [["<|a", "<|a|>"], ["<|a|>", "<|a"], ["<|endoftext|>s"]])
def test_one_that_begins_with_another_is_refused(names: list[str]) -> None:
    """tiktoken reads `<|a` in `<|a|>`, whose own token then never comes; tokenizers takes the longer."""
    with pytest.raises(UserError, match="begins with the other"):
        byte_tokenizer().with_specials(names)


def test_one_that_is_no_text_is_refused() -> None:
    with pytest.raises(UserError, match="not UTF-8"):
        byte_tokenizer().with_specials(["a\udcff"])
