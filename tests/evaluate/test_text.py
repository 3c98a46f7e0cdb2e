"""Text becomes a stream of tokens as in a corpus, and is counted as text."""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from daybreak.data.documents import Fields
from daybreak.data.shards import Corpus
from daybreak.data.tokenizer import character_tokenizer, train_bpe
from daybreak.errors import UserError
from daybreak.evaluate.language_model import LanguageModel
from daybreak.evaluate.text import Amount, read_text, text_of_split
from small_models import make_model

TEXTS = ["Naïve café at daybreak.", " 日本語 and\n🌅, the  light of the day\n", "x", "<|endoftext|>"]


def write(path: Path, texts: list[str], key: str = "text") -> str:
    lines = "".join(json.dumps({key: text}) + "\n" for text in texts)
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())
    return str(path)


def amount_of(texts: list[str]) -> Amount:
    whole = "".join(texts)
    return Amount(len(texts), len(whole.encode()), len(whole), sum(len(text.split()) for text in texts))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_documents_are_joined_by_one_end_of_text_and_counted_as_text(tmp_path: Path, name: str) -> None:
    model = make_model(tokenizer=train_bpe(iter(TEXTS), 300))
    text = read_text(model, [write(tmp_path / name, [TEXTS[0], "", " \n", *TEXTS[1:]])])
    end, ids = model.tokenizer.end_of_text, text.tokens.read(0, len(text.tokens)).tolist()
    assert ids == [token for each in TEXTS for token in (end, *model.tokenizer.encode(each).tolist())]
    assert ids.count(end) == len(TEXTS)
    assert text.amount == amount_of(TEXTS)
    assert text.uncounted is None


def test_a_text_in_pieces_is_the_same_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a word " * 9 + "withoutanyblankatallforlong" * 3, "日本語" * 20]
    source = write(tmp_path / "a.jsonl", texts)
    whole = read_text(make_model(), [source])
    monkeypatch.setattr("daybreak.data.documents._PIECE", 8)
    in_pieces = read_text(make_model(), [source])
    assert in_pieces.amount == whole.amount == amount_of(texts)
    assert in_pieces.tokens.read(0, len(in_pieces.tokens)).tolist() == whole.tokens.read(0, len(whole.tokens)).tolist()


def test_several_files_are_one_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "b.txt").write_text("two words")
    text = read_text(make_model(), [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")])
    assert bytes(text.tokens.read(1, 5).tolist()) == b"one\n"
    assert text.amount == Amount(2, 13, 13, 3)


def test_another_key_of_the_text(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", ["one"], key="body")
    assert read_text(make_model(), [source], Fields("body")).amount == Amount(1, 3, 3, 1)
    with pytest.raises(UserError, match='"text"'):
        read_text(make_model(), [source])


@pytest.mark.parametrize("content", ["", " \n\n"])
def test_no_text_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(UserError, match=r"no text in .*a\.txt"):
        read_text(make_model(), [str(tmp_path / "a.txt")])


def test_a_character_that_the_tokenizer_lacks_is_an_error(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", ["abc d"])
    with pytest.raises(UserError, match="no token for 'd'"):
        read_text(make_model(tokenizer=character_tokenizer(["abc "])), [source])


@dataclass(frozen=True)
class Lowering(LanguageModel):
    """Begins with 1, ends with 2, and knows letters without their case."""

    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        return np.asarray([ord(sign) for sign in text.lower()], dtype=np.uint32)

    def decode(self, ids: npt.NDArray[np.uint32]) -> str:
        return "".join(map(chr, ids))

    def losses(self, inputs_BT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def row_bytes(self, context: int) -> int:
        return 0


def test_a_tokenizer_that_loses_text_is_said_and_a_token_of_the_beginning_does_not_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values: dict[str, Any] = {"context": 8, "limit": None, "tokens_at_once": 8, "device": torch.device("cpu")}
    model = Lowering(name="lower", begin=1, end=2, **values)
    text = read_text(model, [write(tmp_path / "a.jsonl", ["ab", "cD", "E"])])
    assert text.tokens.read(0, len(text.tokens)).tolist() == [1, 97, 98, 2, 1, 99, 100, 2, 1, 101]
    assert text.uncounted == 1
    assert "does not give back the text of 2 of 3 documents" in capsys.readouterr().err
    read_text(model, [write(tmp_path / "b.jsonl", ["ab"])])
    assert "give back" not in capsys.readouterr().err


@pytest.mark.parametrize("at_once", [7, 1 << 20])
def test_a_validation_split_is_counted_as_its_text(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("daybreak.evaluate.text._READ_AT_ONCE", at_once)
    text, stream = text_of_split(corpus), corpus.stream("validation")
    documents = corpus.tokenizer.decode(stream.read(0, len(stream)).tolist()).split("<|endoftext|>")[1:]
    assert text.amount == amount_of(documents)
    assert text.amount.bytes == corpus.validation.bytes
    assert text.amount.documents == corpus.validation.documents
