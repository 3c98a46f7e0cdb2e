"""Finished runs compared by hand; and runs that do not compare."""

import shutil
import sys
from pathlib import Path

import pytest

from daybreak.cli import main
from daybreak.data.prepare import prepare
from daybreak.data.shards import Corpus
from daybreak.errors import UserError
from daybreak.recipe import Recipe
from daybreak.run import train
from daybreak.study.runs import compare_runs
from daybreak.study.statistics import paired_difference
from made_study import SETTINGS
from made_text import write_documents


def make(out: Path, corpus: Path, *overrides: str, seed: int = 1) -> Path:
    recipe = Recipe.load("gpt2-tiny", *SETTINGS, "budget=640 tokens", *overrides, f"seed={seed}")
    return train(recipe, data=corpus, out=out).path


@pytest.fixture(scope="module")
def runs(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two recipes with two seeds each, and runs that do not compare with them."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text").mkdir()
    other = prepare([str(write_documents(folder / "text", seed=5))], folder / "other", tokenizer="bytes")
    return {
        "a1": make(folder / "a1", corpus.path),
        "a2": make(folder / "a2", corpus.path, seed=2),
        "b1": make(folder / "b1", corpus.path, "optimizer.lr=1e-2"),
        "b2": make(folder / "b2", corpus.path, "optimizer.lr=1e-2", seed=2),
        "b3": make(folder / "b3", corpus.path, "optimizer.lr=1e-2", seed=3),
        "longer": make(folder / "longer", corpus.path, "optimizer.lr=1e-2", "budget=704 tokens"),
        "timed": make(folder / "timed", corpus.path, "optimizer.lr=1e-2", "budget=1s"),
        "measured": make(folder / "measured", corpus.path, "optimizer.lr=1e-2", "evaluation.tokens=256"),
        "text": make(folder / "text-run", other.path, "optimizer.lr=1e-2"),
    }


def test_runs_are_paired_by_seed_and_grouped_by_recipe(runs: dict[str, Path]) -> None:
    found = compare_runs([runs["a1"], runs["b2"], runs["a2"], runs["b1"]])
    (base, other), (comparison,) = found.groups, found.comparisons
    assert (base.name, other.name, found.equal) == ("a1", "b2", "640 tokens")
    assert sorted(base.losses) == sorted(other.losses) == [1, 2]
    assert other.changes == {"optimizer.lr": (0.01, 0.003)}
    assert comparison.difference == paired_difference(other.losses, base.losses)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a1", "a2"), "all these runs are of one recipe"),
        (("a1", "a1", "b1"), "has the recipe and the seed of another"),
        (("a1", "b3"), "no seed in common with a1"),
        (("a1", "longer"), "trained on 640 and 704 tokens"),
        (("a1", "timed"), r"budgets are 640 tokens \(process\) and 1s \(process\)"),
        (("a1", "measured"), "measured on 512 tokens .* and 256 tokens"),
        (("a1", "text"), "they read other text"),
    ],
)
def test_runs_whose_losses_say_nothing_are_refused(runs: dict[str, Path], names: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        compare_runs([runs[name] for name in names])


def test_runs_whose_weights_are_gone_compare_as_well(runs: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a1", "b1"):
        shutil.copytree(runs[name], tmp_path / name)
        shutil.rmtree(tmp_path / name / "checkpoints")
    without, within = (
        compare_runs([folder["a1"], folder["b1"]])
        for folder in ({name: tmp_path / name for name in ("a1", "b1")}, runs)
    )
    assert without.comparisons == within.comparisons


def test_a_run_that_is_not_finished_is_refused(runs: dict[str, Path], corpus: Corpus, tmp_path: Path) -> None:
    recipe = Recipe.load("gpt2-tiny", *SETTINGS, "budget=10M tokens", "optimizer.lr=1e-2")
    train(recipe, data=corpus.path, out=tmp_path / "stopped", stop_after="0.5s")
    with pytest.raises(UserError, match="stopped is not finished"):
        compare_runs([runs["a1"], tmp_path / "stopped"])


def test_the_command_prints_the_table_and_what_differs(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["daybreak", "compare", *(str(runs[name]) for name in ("a1", "a2", "b1", "b2"))])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    said = capsys.readouterr().out
    assert "equal in 640 tokens" in said
    assert "optimizer.lr: 0.01 in b1, 0.003 in a1" in said
