"""Steps that are not finite, and spikes: the loss scale, and what a refused step leaves untouched."""

import json
import math
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from daybreak.checkpoint import open_latest
from daybreak.data.shards import Corpus
from daybreak.errors import DivergedError
from daybreak.model.gpt import GPT
from daybreak.recipe import Recipe
from daybreak.run import Run, train
from daybreak.training.guard import Guard, GuardConfig, GuardRecord, make_guard
from daybreak.training.metrics import read_metrics

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


CONFIG = GuardConfig()


def test_the_scale_halves_on_overflow_and_doubles_after_two_thousand_good_steps() -> None:
    guard = make_guard(CONFIG, "fp16")
    assert guard.scale == 65_536
    assert guard.judge(1.0, math.inf) == "not finite"
    assert guard.scale == 32_768
    assert [guard.judge(1.0, 1.0) for _ in range(1999)] == ["good"] * 1999
    assert guard.scale == 32_768
    assert guard.judge(1.0, 1.0) == "good"
    assert guard.scale == 65_536


def test_an_overflow_begins_the_count_of_good_steps_anew() -> None:
    guard = make_guard(CONFIG, "fp16")
    for norm in [*[1.0] * 1999, math.nan, *[1.0] * 1999]:
        guard.judge(1.0, norm)
    assert guard.scale == 32_768


def test_the_scale_never_falls_below_one_nor_grows_without_end() -> None:
    guard = Guard(CONFIG, scaling=True, scale=2.0)
    for norm in [math.nan, math.nan, math.nan, 1.0]:
        guard.judge(1.0, norm)
    assert guard.scale == 1.0
    grown = Guard(CONFIG, scaling=True, scale=2.0**24)
    for _ in range(4000):
        grown.judge(1.0, 1.0)
    assert grown.scale == 2.0**24


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_only_fp16_is_scaled(precision: str) -> None:
    guard = make_guard(CONFIG, precision)
    for norm in [math.nan, *[1.0] * 3000]:
        guard.judge(1.0, norm)
    assert guard.scale == 1.0


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_a_loss_or_a_norm_that_is_not_finite_is_refused(loss: float, norm: float) -> None:
    guard = make_guard(CONFIG, "fp32")
    assert guard.judge(loss, norm) == "not finite"
    assert (guard.skipped, guard.skipped_in_a_row) == (1, 1)
    assert guard.judge(1.0, 1.0) == "good"
    assert (guard.skipped, guard.skipped_in_a_row) == (1, 0)


def waves(count: int, *, mean: float = 2.0, swing: float = 0.1) -> list[float]:
    """Losses that swing by the same amount around a mean, which is their standard deviation, about."""
    return [mean + swing * (-1) ** step for step in range(count)]


def watching(*, spike: float = 4.0, window: int = 8) -> Guard:
    """A guard that has seen as many losses as it judges by."""
    guard = make_guard(GuardConfig(spike=spike, spike_window=window), "fp32")
    assert [guard.judge(loss, 1.0) for loss in waves(window)] == ["good"] * window
    return guard


def test_without_the_setting_nothing_is_a_spike() -> None:
    guard = make_guard(CONFIG, "fp32")
    assert {guard.judge(loss, 1.0) for loss in [*waves(300), 1e6, 1e30]} == {"good"}
    assert guard.rollbacks == 0


@pytest.mark.parametrize(("deviations", "verdict"), [(3.9, "good"), (4.1, "spike")])
def test_a_loss_is_a_spike_from_so_many_standard_deviations_above_the_mean_on(deviations: float, verdict: str) -> None:
    guard = watching(spike=4.0)
    mean, deviation = statistics.fmean(waves(8)), statistics.stdev(waves(8))
    assert guard.judge(mean + deviations * deviation, 1.0) == verdict
    assert guard.rollbacks == guard.rollbacks_in_a_row == (verdict == "spike")


def test_a_loss_far_below_the_mean_is_good() -> None:
    assert watching().judge(0.001, 1.0) == "good"


def test_before_a_window_of_losses_was_seen_nothing_is_a_spike() -> None:
    guard = make_guard(GuardConfig(spike=4.0, spike_window=8), "fp32")
    assert [guard.judge(loss, 1.0) for loss in [*waves(7), 100.0]] == ["good"] * 8


def test_losses_without_any_deviation_make_no_spike() -> None:
    guard = make_guard(GuardConfig(spike=4.0, spike_window=8), "fp32")
    assert [guard.judge(loss, 1.0) for loss in [*[2.0] * 8, 2.000001]] == ["good"] * 9


def test_a_spike_and_a_step_that_is_not_finite_do_not_move_what_spikes_are_judged_by() -> None:
    guard = watching()
    before = list(guard.losses)
    assert guard.judge(50.0, 1.0) == "spike"
    assert guard.judge(math.nan, 1.0) == "not finite"
    assert guard.judge(50.0, math.inf) == "not finite"
    assert guard.losses == before
    assert guard.judge(50.0, 1.0) == "spike"  # as it would not be if the first had been let in
    assert (guard.rollbacks, guard.rollbacks_in_a_row, guard.skipped) == (2, 2, 2)


def test_only_the_latest_losses_judge() -> None:
    guard = watching(window=8)
    for loss in waves(200, mean=1.0, swing=0.01):
        guard.judge(loss, 1.0)
    assert len(guard.losses) == 8
    assert guard.judge(2.0, 1.0) == "spike"  # the mean that it began with


def test_a_window_of_good_steps_begins_the_count_of_rollbacks_anew() -> None:
    guard = watching(window=8)
    for good in (7, 8, 0):
        assert guard.judge(50.0, 1.0) == "spike"
        for loss in waves(good):
            guard.judge(loss, 1.0)
    assert guard.rollbacks == 3
    assert guard.rollbacks_in_a_row == 1


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_guard_goes_on_from_its_state_in_json(precision: str) -> None:
    config = GuardConfig(spike=4.0, spike_window=8)
    losses = [*waves(10), 50.0, math.nan, *waves(5), 50.0, math.nan, 50.0, *waves(9), 3.0, 50.0]
    whole = make_guard(config, precision)
    expected = [whole.judge(loss, 1.0) for loss in losses]
    assert set(expected) == {"good", "not finite", "spike"}
    for cut in range(len(losses)):
        guard = make_guard(config, precision)
        verdicts = [guard.judge(loss, 1.0) for loss in losses[:cut]]
        guard = make_guard(config, precision).resumed(GuardRecord(**json.loads(json.dumps(asdict(guard.record())))))
        verdicts += [guard.judge(loss, 1.0) for loss in losses[cut:]]
        assert verdicts == expected
        assert guard == whole


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


def trained(folder: Path, corpus: Corpus, *overrides: str) -> Run:
    (folder / "recipe.toml").write_text(RECIPE)
    return train(Recipe.load(folder / "recipe.toml", *overrides), data=corpus.path, out=folder / "run")


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


def test_twenty_refused_steps_in_a_row_end_the_run_and_name_the_last_good_checkpoint(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(monkeypatch, set(range(4, 100)), math.nan)
    with pytest.raises(DivergedError, match=r"20 steps in a row .* lower optimizer\.lr") as caught:
        trained(tmp_path, corpus, "budget=50 steps", "checkpoint.every=3 steps")
    assert [record["skipped"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl", "train")] == [
        *[0] * 3,
        *range(1, 20),
    ]
    # The weights at step 3 are the last that a good step made; later checkpoints hold the same.
    newest = open_latest(tmp_path / "run" / "checkpoints")
    assert newest is not None
    assert str(newest.path) in str(caught.value)
    good = tensors(tmp_path, 3)
    assert all(torch.equal(tensor, good[name]) for name, tensor in tensors(tmp_path, newest.step).items())


def test_nineteen_refused_steps_in_a_row_do_not_end_the_run(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(monkeypatch, {*range(2, 21), *range(22, 41)}, math.nan)
    run = trained(tmp_path, corpus, "budget=42 steps")
    assert run.finished
    assert [record["step"] for record in run.metrics() if record["loss"] is not None] == [1, 21, 41, 42]


@pytest.mark.parametrize("most", [1, 3])
def test_how_many_refused_steps_end_the_run_is_a_setting(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    poisoned(monkeypatch, {3, 4, 5, 6}, math.nan)
    with pytest.raises(DivergedError, match=rf"^{most} steps in a row"):
        trained(tmp_path, corpus, f"guard.most_skipped={most}")


SPIKES = ("budget=30 steps", "guard={ spike = 20.0, spike_window = 8 }", "checkpoint.every=4 steps")


def test_a_spike_takes_weights_back_to_the_last_checkpoint_and_the_run_on_behind_its_windows(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    poisoned(monkeypatch, {19}, 1e4)
    run = trained(tmp_path, corpus, *SPIKES)
    assert run.finished
    assert (run.spent.steps, run.spent.windows, run.spent.tokens) == (30, 120, 1920)
    good, behind = tensors(tmp_path, 16), tensors(tmp_path, 19)  # saved at once, so that no crash leads back to it
    assert good.keys() == behind.keys()
    assert all(torch.equal(good[name], behind[name]) for name in good)
    assert not any(torch.equal(behind[name], tensors(tmp_path, 20)[name]) for name in good if name.endswith("exp_avg"))
    (event,) = run.metrics("rollback")
    assert (event["step"], event["back_to"]) == (19, 16)
    assert event["loss"] == run.metrics()[18]["loss"] > 100
    assert [record["step"] for record in run.metrics()] == list(range(1, 31))
    assert "of step 19 is a spike; back to step 16" in capsys.readouterr().err


def test_a_spike_before_any_checkpoint_is_only_passed_by(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    poisoned(monkeypatch, {19}, 1e4)
    run = trained(tmp_path, corpus, *SPIKES, "checkpoint.every=30 steps")
    assert run.finished
    assert run.metrics("rollback")[0]["back_to"] is None
    assert "no checkpoint yet, so only the step is skipped" in capsys.readouterr().err
    assert max(record["loss"] for record in run.metrics()[19:]) < run.metrics()[0]["loss"]


def test_a_run_that_only_spikes_ends_with_a_message(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(monkeypatch, set(range(19, 31)), 1e4)
    with pytest.raises(DivergedError, match=r"spiked 3 times.*step-00000020.*lower optimizer\.lr"):
        trained(tmp_path, corpus, *SPIKES, "guard.most_rollbacks=3")
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl", "rollback")) == 2


def test_a_run_that_only_overflows_ends_with_a_message(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(monkeypatch, set(range(1, 100)), math.nan)
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("6 steps", "50 steps"))
    with pytest.raises(DivergedError, match=r"lower optimizer\.lr"):
        train(Recipe.load(tmp_path / "recipe.toml"), data=corpus.path, out=tmp_path / "run")
