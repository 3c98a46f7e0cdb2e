"""`daybreak evaluate` on text and at contexts: tables, documents of JSON, mistakes."""

import io
import json
import math
import sys
from pathlib import Path

import pytest
import torch

from daybreak import Recipe, cli, load, train
from daybreak.data.shards import Corpus
from daybreak.evaluate.language_model import DaybreakModel
from daybreak.evaluate.sweep import sweep

TINY = ("budget=2 steps", "data.window=16", "batch.tokens=64", "execution.threads=1", "evaluation.tokens=64")
TINY_MODEL = ("model.layers=1", "model.heads=2", "model.dim=16", "model.context=16", "model.vocab_size=320")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> Path:
    """A short run with learned positions, of bytes."""
    recipe = Recipe.load("gpt2-tiny", "data.tokenizer=bytes", *TINY, *TINY_MODEL)
    return train(recipe, data=corpus.path, out=tmp_path_factory.mktemp("run") / "tiny").path


def evaluate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[str, str]:
    """Standard output and error of the command; raises SystemExit if it is refused."""
    monkeypatch.setattr(sys, "argv", ["daybreak", "evaluate", *map(str, words)])
    capsys.readouterr()
    try:
        cli.main()
    except SystemExit as end:
        if end.code:
            raise
    said = capsys.readouterr()
    return said.out, said.err


def test_a_text_gets_a_figure_a_line_and_the_same_from_python(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("Naïve café at daybreak")
    (tmp_path / "b.txt").write_text("and more")
    expected = load(run).evaluate_text(str(tmp_path / "a.txt"), str(tmp_path / "b.txt"))
    out, _ = evaluate(monkeypatch, capsys, run, "--text", tmp_path / "a.txt", tmp_path / "b.txt")
    lines = out.splitlines()
    for figure in (expected.loss, expected.bits_per_byte, expected.bits_per_character):
        assert any(f"{figure:.4f}" in line for line in lines)
    assert lines[-1].split(", ") == [" " * 20 + "2 documents", "32 bytes", "30 characters", "6 words"]
    assert expected.tokens == 33
    assert all(len(line) <= 80 for line in lines)

    words = (run, "--text", tmp_path / "a.txt", "--text", tmp_path / "b.txt", "--stride", 3, "--json")
    document = json.loads(evaluate(monkeypatch, capsys, *words)[0])
    narrow = load(run).evaluate_text(str(tmp_path / "a.txt"), str(tmp_path / "b.txt"), stride=3)
    assert document["loss"] == narrow.loss != expected.loss
    assert (document["tokens"], document["bytes"], document["documents"]) == (33, 32, 2)
    assert (document["context"], document["stride"]) == (16, 3)


def test_standard_input(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "one"}\n{"text": "two"}\n')))
    out, _ = evaluate(monkeypatch, capsys, run, "--text", "-", "--json")
    assert (json.loads(out)["documents"], json.loads(out)["bytes"]) == (2, 6)


def test_contexts_of_the_validation_split_are_rows_of_a_table(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = load(run)
    out, _ = evaluate(monkeypatch, capsys, run, "--contexts", "4,16,32", "--stride", "8")
    about, head, first, second, third = out.splitlines()
    assert about.startswith(f"{load(run).validation_texts()[0].amount.documents:,} documents, ")
    assert len(head) <= 80
    assert first.split()[:2] == ["4", "4"]
    assert second.split()[:2] == ["16", "8"]
    assert third.split(maxsplit=1) == ["32", "not measured: its positions end at 16"]
    rows = list(sweep(trained.language_model, trained.validation_texts(), [4, 16], stride=8))
    for line, row in zip((first, second), rows, strict=True):
        assert f"{row.loss:.4f}" == line.split()[2]
        assert f"{row.bits_per_byte:.4f}" == line.split()[4]

    document = json.loads(evaluate(monkeypatch, capsys, run, "--contexts", "16,32", "--json")[0])
    assert document["text"] == ["validation"]
    assert document["contexts"][0]["loss"] == pytest.approx(trained.evaluate().loss, rel=1e-5)
    assert document["contexts"][1] == {"context": 32, "reason": "its positions end at 16"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--contexts", "4,x"), "--contexts 4,x is no list of numbers of tokens"),
        (("--contexts", "4,0"), "--contexts 4,0 is no list of numbers of tokens"),
        (("--contexts", "4,4"), "names one twice"),
        (("a.txt",), "texts go behind --text"),
        (("--text", "a.txt", "--data", "corpus"), "exclude each other"),
        (("--text", "a.txt"), "matches no file"),
    ],
)
def test_mistakes_are_one_message(
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: str,
) -> None:
    with pytest.raises(SystemExit) as end:
        evaluate(monkeypatch, capsys, run, *words)
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert said in err
    assert "Traceback" not in err
    assert out == ""


def test_a_loss_that_is_no_number_is_null_at_every_context(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(DaybreakModel, "losses", lambda self, inputs_BT, targets_BT: torch.full((1,), math.nan))
    (tmp_path / "a.txt").write_text("Naïve café at daybreak")
    out, _ = evaluate(monkeypatch, capsys, run, "--text", tmp_path / "a.txt", "--contexts", "8,16", "--json")
    assert [(row["context"], row["loss"]) for row in json.loads(out)["contexts"]] == [(8, None), (16, None)]


def test_a_model_of_hugging_face_has_no_split_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        evaluate(monkeypatch, capsys, "hf:gpt2")
    assert end.value.code == 2
    assert "give --text FILE" in capsys.readouterr().err
