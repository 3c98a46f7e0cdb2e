"""The steps on a GPU with training replaced by a formula: what is run, what is kept, what a failure leaves."""

import json
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pytest

import gpu_steps
from daybreak.recipe import Recipe
from gpu_plan import FULL
from gpu_runs import Figures
from gpu_steps import Bench, measure
from processes import FailedError


def bench(tmp_path: Path, seconds: float = 540) -> Bench:
    return Bench(FULL, tmp_path, tmp_path / "out", tmp_path / "work", "fast", (), time.monotonic() + seconds)


def figures(loss: float) -> Figures:
    filled = {field.name: 1.0 for field in fields(Figures)} | {"loss": loss, "command": "daybreak train"}
    return Figures(**filled)  # type: ignore[arg-type]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Recipe and budget of each run. gpt2 comes to a loss of 4, the fast recipe to 4.5 in 45 s and 3.9 in 72 s."""
    made: list[tuple[str, str]] = []

    def train(recipe: str, settings: Sequence[str], corpus: Path, out: Path, cache: Path, limit: float) -> Figures:
        budget = settings[-1].removeprefix("budget=")
        made.append((recipe, budget))
        if (recipe, budget) == ("fast", "10steps"):
            raise FailedError("out of memory")
        return figures(4.0 if recipe == "gpt2" else {"45s": 4.5, "72s": 3.9}[budget])

    monkeypatch.setattr(gpu_steps, "train", train)
    return made


def test_budgets_ascend_until_one_reaches_the_target(tmp_path: Path, runs: list[tuple[str, str]]) -> None:
    assert measure(bench(tmp_path), ["target", "ours"]) == 0
    assert runs == [("gpt2", "180s"), ("fast", "45s"), ("fast", "72s")]
    assert "The target, 4.0000, was reached within 72s" in (tmp_path / "out" / "results.md").read_text()


def test_a_step_that_fails_is_noted_and_leaves_the_others(tmp_path: Path, runs: list[tuple[str, str]]) -> None:
    assert measure(bench(tmp_path), ["plain", "cold", "target"]) == 1
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["cold"]["failed"] == "FailedError: out of memory"
    assert results["plain"]["loss"] == results["target"]["loss"] == 4.0
    assert "out of memory" in (tmp_path / "out" / "results.md").read_text()


def test_a_run_that_does_not_fit_is_not_begun(tmp_path: Path, runs: list[tuple[str, str]]) -> None:
    assert measure(bench(tmp_path, seconds=60), ["target", "plain"]) == 1
    assert runs == [("gpt2", "40steps")]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "it needs 190" in results["target"]["failed"]


def test_tuning_keeps_what_was_tried_when_the_time_is_up(tmp_path: Path, runs: list[tuple[str, str]]) -> None:
    assert measure(bench(tmp_path, seconds=30), ["tune"]) == 0
    assert runs == []
    measure(bench(tmp_path), ["tune"])
    measure(bench(tmp_path), ["tune"])
    assert runs == [("gpt2", "50s")] * len(FULL.tuning)
    assert "optimizer.lr=1.8e-3 batch.tokens=131072" in (tmp_path / "out" / "results.md").read_text()


def test_a_later_call_keeps_what_was_measured(tmp_path: Path, runs: list[tuple[str, str]]) -> None:
    measure(bench(tmp_path), ["target"])
    measure(bench(tmp_path), ["ours"])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["target"]["loss"] == 4.0
    assert list(results["ours"]["runs"]) == ["45s", "72s"]


@pytest.mark.parametrize("settings", [FULL.plain, FULL.stock, FULL.tuned, *FULL.tuning])
def test_settings_of_the_plan_make_a_recipe(settings: tuple[str, ...]) -> None:
    recipe = Recipe.load("gpt2", *FULL.every, *settings)
    assert recipe.batch.tokens % (32 * recipe.row_length) == 0
