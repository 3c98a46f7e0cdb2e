"""Steps that are not finite: the loss scale, and what a refused step leaves untouched."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from daybreak.data.shards import Corpus
from daybreak.errors import UserError
from daybreak.model.gpt import GPT
from daybreak.recipe import Recipe
from daybreak.run import Run, train
from daybreak.training.guard import Guard, make_guard

RECIPE = """
budget = "6 steps"
data = { window = 16 }
batch = { tokens = 64 }
model = { layers = 1, heads = 2, dim = 16, context = 16, vocab_size = 320 }
optimizer = { lr = 1e-2 }
checkpoint = { every = "1 steps", keep = 100 }
evaluation = { tokens = 64 }
execution = { micro_batch = 2, threads = 1 }
"""


def test_the_scale_halves_on_overflow_and_doubles_after_two_thousand_good_steps() -> None:
    guard = make_guard("fp16")
    assert guard.scale == 65_536
    assert not guard.accepts(1.0, math.inf)
    assert guard.scale == 32_768
    assert [guard.accepts(1.0, 1.0) for _ in range(1999)] == [True] * 1999
    assert guard.scale == 32_768
    assert guard.accepts(1.0, 1.0)
    assert guard.scale == 65_536


def test_an_overflow_begins_the_count_of_good_steps_anew() -> None:
    guard = make_guard("fp16")
    for norm in [*[1.0] * 1999, math.nan, *[1.0] * 1999]:
        guard.accepts(1.0, norm)
    assert guard.scale == 32_768


def test_the_scale_never_falls_below_one_nor_grows_without_end() -> None:
    guard = Guard(scaling=True, scale=2.0)
    for norm in [math.nan, math.nan, math.nan, 1.0]:
        guard.accepts(1.0, norm)
    assert guard.scale == 1.0
    grown = Guard(scaling=True, scale=2.0**24)
    for _ in range(4000):
        grown.accepts(1.0, 1.0)
    assert grown.scale == 2.0**24


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_only_fp16_is_scaled(precision: str) -> None:
    guard = make_guard(precision)
    for norm in [math.nan, *[1.0] * 3000]:
        guard.accepts(1.0, norm)
    assert guard.scale == 1.0


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_a_loss_or_a_norm_that_is_not_finite_is_refused(loss: float, norm: float) -> None:
    guard = make_guard("fp32")
    assert not guard.accepts(loss, norm)
    assert (guard.skipped, guard.skipped_in_a_row) == (1, 1)


def test_twenty_refused_steps_in_a_row_end_the_run_and_nineteen_do_not() -> None:
    guard = make_guard("bf16")
    for norm in [*[math.nan] * 19, 1.0, *[math.nan] * 19]:
        guard.accepts(1.0, norm)
    with pytest.raises(UserError, match="20 steps in a row"):
        guard.accepts(1.0, math.nan)


def poisoned(monkeypatch: pytest.MonkeyPatch, steps: set[int], poison: float) -> None:
    """Multiply the loss of the second micro-batch of some steps, of two micro-batches each."""
    calls, forward = 0, GPT.forward

    def spoil(self: GPT, tokens: Any, targets: Any, noise: Any = None) -> torch.Tensor:
        nonlocal calls
        loss = forward(self, tokens, targets, noise)
        if not self.training or not torch.is_grad_enabled():
            return loss
        calls += 1
        step, part = divmod(calls - 1, 2)
        return loss * poison if step + 1 in steps and part == 1 else loss

    monkeypatch.setattr(GPT, "forward", spoil)


def trained(folder: Path, corpus: Corpus) -> Run:
    (folder / "recipe.toml").write_text(RECIPE)
    return train(Recipe.load(folder / "recipe.toml"), data=corpus.path, out=folder / "run")


def tensors(folder: Path, step: int) -> dict[str, torch.Tensor]:
    path = folder / "run" / "checkpoints" / f"step-{step:08d}"
    moments = load_file(path / "optimizer.safetensors")
    return load_file(path / "model.safetensors") | {f"optimizer/{name}": each for name, each in moments.items()}


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_poisoned_step_changes_no_weight_and_no_moment_yet_is_spent(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch, poison: float
) -> None:
    poisoned(monkeypatch, {3}, poison)
    run = trained(tmp_path, corpus)
    before, after, later = (tensors(tmp_path, step) for step in (2, 3, 4))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(torch.equal(after[name], later[name]) for name in after if name.endswith("exp_avg"))
    assert all(tensor.isfinite().all() for tensor in later.values())

    assert run.finished
    assert (run.spent.steps, run.spent.windows, run.spent.tokens) == (6, 24, 384)
    records = run.metrics()
    assert [record["skipped"] for record in records] == [0, 0, 1, 1, 1, 1]
    assert [record["loss"] is None for record in records] == [False, False, True, False, False, False]
    assert records[2]["tokens"] - records[1]["tokens"] == 64


def test_a_poisoned_step_is_passed_by_and_its_neighbours_see_their_own_windows(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clean").mkdir()
    (tmp_path / "spoilt").mkdir()
    clean = trained(tmp_path / "clean", corpus)
    poisoned(monkeypatch, {1}, math.nan)
    spoilt = trained(tmp_path / "spoilt", corpus)
    # Weights still are the initial ones at step 2, so its loss is near that of an untrained model on step 2's windows.
    first, second = clean.metrics()[:2], spoilt.metrics()[:2]
    assert second[0]["loss"] is None
    assert second[1]["loss"] == pytest.approx(first[1]["loss"], abs=0.3)
    assert second[1]["loss"] != first[1]["loss"]


def test_a_run_that_only_overflows_ends_with_a_message(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(monkeypatch, set(range(1, 100)), math.nan)
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("6 steps", "50 steps"))
    with pytest.raises(UserError, match=r"lower optimizer\.lr"):
        train(Recipe.load(tmp_path / "recipe.toml"), data=corpus.path, out=tmp_path / "run")
