"""The same run from every kind of stop: inside accumulation, across epochs and shards, with a loss scale, by time."""

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from daybreak import Recipe, Run, load, train
from daybreak.data.batches import Batches, Rows
from daybreak.data.prepare import prepare
from daybreak.data.shards import Corpus
from daybreak.training import guard, loop
from daybreak.training.budget import Clock
from daybreak.training.metrics import Metrics
from daybreak.training.signals import StopRequest
from daybreak.verify import verify

STEPS = 12
QUICK_STOPS = {(1, 0), (3, 3), (4, 2), (12, 1)}  # steps and micro-batches; all others take `make test-slow`
RECIPE = """
budget = "12 steps"
seed = 3

[data]
window = 16

[batch]
tokens = 128

[model]
layers = 1
heads = 2
dim = 16
context = 16
vocab_size = 257
dropout = 0.1

[optimizer]
lr = 1e-2

[evaluation]
every = "25%"
tokens = 64

[execution]
micro_batch = 2
precision = "fp32"
threads = 1
"""


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "exact.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """25 windows in shards of 150 tokens: an epoch ends inside step 4, shards end inside windows."""
    folder = tmp_path_factory.mktemp("small")
    documents = "\n".join('{"text": "%s"}' % (f"document {n} of a few words, " * 2) for n in range(10))
    (folder / "documents.jsonl").write_text(documents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daybreak.data.pipeline._SHARD_TOKENS", 150)
        return prepare([str(folder / "documents.jsonl")], folder / "corpus", tokenizer="bytes")


def bits(run: Run) -> dict[str, bytes]:
    """Weights and moments of the newest checkpoint."""
    files = ("model.safetensors", "optimizer.safetensors")
    tensors = {f"{f}/{name}": tensor for f in files for name, tensor in load_file(run.checkpoint.path / f).items()}
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def course(run: Run) -> list[tuple[Any, ...]]:
    size = ("tokens", "batch_tokens", "length")
    kept = ("step", *size, "loss", "lr", "gradient_norm", "progress", "progress_share", "skipped")
    return [tuple(record[key] for key in kept) for record in run.metrics()]


def assert_same(one: Run, other: Run) -> None:
    assert course(one) == course(other)
    assert bits(one) == bits(other)
    assert [r["loss"] for r in one.metrics("validation")] == [r["loss"] for r in other.metrics("validation")]


def stopping_in(step: int, micro_batch: int) -> AbstractContextManager[None]:
    """As if a signal came while a step's micro-batch was read, counted from 0; steps are of eight windows."""
    return stopping_at((step - 1) * 8, micro_batch)


@contextmanager
def stopping_at(at: int, micro_batch: int) -> Iterator[None]:
    """As `stopping_in`, in the step that begins at a place."""
    stop = StopRequest()
    steps_of = Batches.step

    @contextmanager
    def on_signals(*_: object) -> Iterator[StopRequest]:
        yield stop

    def step_and_stop(self: Batches, place: int, **size: int) -> Iterator[Rows]:
        for index, rows in enumerate(steps_of(self, place, **size)):
            if place == at and index == micro_batch:
                stop.requested = True
            yield rows

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daybreak.run.stop_on_signals", on_signals)
        patch.setattr(Batches, "step", step_and_stop)
        yield


@pytest.mark.parametrize(
    ("step", "micro_batch"),
    [
        pytest.param(step, micro_batch, marks=[] if (step, micro_batch) in QUICK_STOPS else [pytest.mark.slow])
        for step in (1, 3, 4, 12)
        for micro_batch in range(4)
    ],
)
def test_a_stop_inside_accumulation_begins_the_step_anew_and_changes_no_bit(
    step: int, micro_batch: int, recipe_file: Path, small_corpus: Corpus, tmp_path: Path
) -> None:
    recipe = Recipe.load(recipe_file)
    undisturbed = train(recipe, data=small_corpus.path, out=tmp_path / "undisturbed")
    with stopping_in(step, micro_batch):
        stopped = train(recipe, data=small_corpus.path, out=tmp_path / "run")
    assert (stopped.finished, stopped.spent.steps) == (False, step - 1)
    assert_same(train(recipe, data=small_corpus.path, out=tmp_path / "run"), undisturbed)


def test_the_small_corpus_has_shards_and_epochs_that_end_inside_steps(small_corpus: Corpus) -> None:
    shards = small_corpus.train.shards
    windows = (small_corpus.train.tokens - 1) // 16
    assert len(shards) >= 3
    assert any(shard.tokens % 16 for shard in shards[:-1])
    assert windows % 8 > 0
    assert windows < STEPS * 8


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=[] if step in (1, 4, 8) else [pytest.mark.slow]) for step in range(1, STEPS)]
)
def test_a_stop_at_every_step_across_epochs_and_shards_changes_no_bit(
    step: int, recipe_file: Path, small_corpus: Corpus, tmp_path: Path
) -> None:
    recipe = Recipe.load(recipe_file)
    undisturbed = train(recipe, data=small_corpus.path, out=tmp_path / "undisturbed")
    with stopping_in(step + 1, 0):
        train(recipe, data=small_corpus.path, out=tmp_path / "run")
    assert_same(train(recipe, data=small_corpus.path, out=tmp_path / "run"), undisturbed)


@pytest.mark.parametrize("step", [2, 5, 6, 9])
def test_a_loss_scale_that_moves_goes_on_where_it_was(
    step: int, recipe_file: Path, small_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in fp16, which a CPU cannot train in: the scale doubles every third good step, and one step overflows."""
    judge = guard.Guard.judge
    monkeypatch.setattr(guard, "_GROWTH_INTERVAL", 3)
    monkeypatch.setattr("daybreak.sitting.make_guard", lambda config, _: guard.make_guard(config, "fp16"))

    def overflow_at_a_large_scale(self: guard.Guard, loss: float, norm: float) -> guard.Verdict:
        return judge(self, loss, float("inf") if self.scale > 2.0**17 else norm)

    monkeypatch.setattr(guard.Guard, "judge", overflow_at_a_large_scale)
    recipe = Recipe.load(recipe_file)
    undisturbed = train(recipe, data=small_corpus.path, out=tmp_path / "undisturbed")
    with stopping_in(step + 1, 0):
        stopped = train(recipe, data=small_corpus.path, out=tmp_path / "run")
    resumed = train(recipe, data=small_corpus.path, out=tmp_path / "run")
    assert resumed.metrics()[-1]["skipped"] > 0
    assert stopped.checkpoint.state["guard"]["scale"] > 1
    assert resumed.checkpoint.state["guard"] == undisturbed.checkpoint.state["guard"]
    assert_same(resumed, undisturbed)


def test_a_replay_under_a_time_budget_follows_the_recorded_progress(
    recipe_file: Path, small_corpus: Corpus, tmp_path: Path
) -> None:
    """A kill behind step 9 of a time budget: steps 6 to 9, done again at another pace, have their lr of before."""

    class Killed(BaseException):
        pass

    record = Metrics.step

    def die_at_9(self: Metrics, step: dict[str, Any]) -> None:
        record(self, step)
        if step["step"] == 9:
            raise Killed

    recipe = Recipe.load(recipe_file, "budget=20s", "checkpoint.every=5steps", "checkpoint.keep=9")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Metrics, "step", die_at_9)
        with pytest.raises(Killed):
            train(recipe, data=small_corpus.path, out=tmp_path / "run")
    lines = [line for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines() if '"train"' in line]
    assert len(lines) == 9

    with stopping_in(15, 0):
        resumed = train(recipe, data=small_corpus.path, out=tmp_path / "run")
    by_attempt: dict[int, dict[int, dict[str, Any]]] = {1: {}, 2: {}}
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        step = json.loads(line)
        if step["kind"] == "train":
            by_attempt[step["attempt"]][step["step"]] = step
    replayed = sorted(by_attempt[1].keys() & by_attempt[2].keys())
    assert replayed == [6, 7, 8, 9]
    for number in replayed:
        for key in ("lr", "progress", "progress_share", "loss", "gradient_norm"):
            assert by_attempt[1][number][key] == by_attempt[2][number][key], (number, key)
    assert [r["step"] for r in resumed.metrics()] == list(range(1, 15))
    progress = [r["progress"] for r in resumed.metrics()]
    assert progress == sorted(progress)
    # Time is part of the state: the second sitting begins with what the first one took.
    assert by_attempt[2][6]["elapsed_seconds"] >= by_attempt[1][9]["elapsed_seconds"]


@pytest.mark.parametrize("days", [-1, pytest.param(1, marks=pytest.mark.slow)])
def test_a_wall_clock_that_jumps_a_day_changes_nothing(
    days: int, recipe_file: Path, small_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = train(Recipe.load(recipe_file), data=small_corpus.path, out=tmp_path / "undisturbed")
    clock, calls = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: clock() + (86400 * days if next(calls) > 3 else 0))
    timed = Recipe.load(recipe_file, "budget=4s", "evaluation.every=never", "samples.every=never")
    began = time.monotonic()
    run = train(timed, data=small_corpus.path, out=tmp_path / "timed")
    assert run.finished
    assert 2.0 < time.monotonic() - began < 8.0
    assert_same(train(Recipe.load(recipe_file), data=small_corpus.path, out=tmp_path / "run"), undisturbed)


def test_elapsed_time_counts_no_downtime() -> None:
    clock = Clock(time.monotonic() - 5.0, before=100.0)
    assert clock.elapsed() == pytest.approx(105.0, abs=0.5)


@pytest.mark.parametrize("settings", [["checkpoint.background=true"], ["checkpoint.keep_every=3steps"]])
def test_how_checkpoints_are_written_changes_no_bit(
    settings: list[str], recipe_file: Path, small_corpus: Corpus, tmp_path: Path
) -> None:
    undisturbed = train(Recipe.load(recipe_file), data=small_corpus.path, out=tmp_path / "undisturbed")
    recipe = Recipe.load(recipe_file, "checkpoint.every=2steps", *settings)
    with stopping_in(8, 2):
        train(recipe, data=small_corpus.path, out=tmp_path / "run")
    assert_same(train(recipe, data=small_corpus.path, out=tmp_path / "run"), undisturbed)


def test_muon_goes_on_bit_for_bit(recipe_file: Path, small_corpus: Corpus, tmp_path: Path) -> None:
    recipe = Recipe.load(recipe_file, "optimizer={kind='muon'}")
    undisturbed = train(recipe, data=small_corpus.path, out=tmp_path / "undisturbed")
    assert any(name.endswith("/momentum") for name in load_file(undisturbed.checkpoint.path / "optimizer.safetensors"))
    with stopping_in(6, 1):
        train(recipe, data=small_corpus.path, out=tmp_path / "run")
    assert_same(train(recipe, data=small_corpus.path, out=tmp_path / "run"), undisturbed)
    losses = [record["loss"] for record in undisturbed.metrics()]
    assert losses[-1] < losses[0] - 0.3
    assert torch.isfinite(torch.tensor(losses)).all()


CURRICULUM = "curriculum={ lengths = [5, 6, 8, 12, 16], stage = '2 steps' }"
RAMP = "batch.ramp={ start = 32, over = '400 tokens' }"
GROWING = {
    "curriculum": (CURRICULUM,),
    "ramp": (RAMP, "budget=1200 tokens"),
    "both, in percent": (CURRICULUM, RAMP, "curriculum.stage=15%", "batch.ramp.over=60%", "budget=900 tokens"),
    "flops": (CURRICULUM, "budget=8e7 flops"),
}


def chosen(run: Run) -> list[tuple[int, int, float]]:
    """What each step of a run was to be."""
    return [(record["batch_tokens"], record["length"], record["lr"]) for record in run.metrics()]


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "flops")) for name in GROWING])
def test_a_run_that_grows_and_is_stopped_at_every_step_changes_no_bit(
    name: str, recipe_file: Path, small_corpus: Corpus, tmp_path: Path
) -> None:
    """One sitting a step, each stopped inside the next one, in this micro-batch of it or that."""
    recipe = Recipe.load(recipe_file, *GROWING[name])
    undisturbed = train(recipe, data=small_corpus.path, out=tmp_path / "undisturbed")
    sizes = {(tokens, length) for tokens, length, _ in chosen(undisturbed)}
    assert len(sizes) >= 4
    for number, record in enumerate(undisturbed.metrics()):
        micro_batches = record["batch_tokens"] // 32  # of 2 x 16 tokens, or fewer
        with stopping_at((record["tokens"] - record["batch_tokens"]) // 16, number % max(1, micro_batches)):
            stopped = train(recipe, data=small_corpus.path, out=tmp_path / "run")
        assert (stopped.finished, stopped.spent.steps) == (False, number)
    resumed = train(recipe, data=small_corpus.path, out=tmp_path / "run")
    assert resumed.spent.flops == undisturbed.spent.flops > 0
    assert_same(resumed, undisturbed)


@pytest.mark.parametrize("name", ["curriculum", "ramp"])
def test_a_micro_batch_of_one_row_trains_a_growing_run_as_one_of_all_rows_does(
    name: str, recipe_file: Path, small_corpus: Corpus, tmp_path: Path
) -> None:
    settings = (*GROWING[name], "batch.ramp.start=64") if name == "ramp" else GROWING[name]
    small, large = (
        train(Recipe.load(recipe_file, *settings, f"execution.micro_batch={rows}"), data=small_corpus.path, out=out)
        for rows, out in ((1, tmp_path / "small"), (8, tmp_path / "large"))
    )
    assert small.checkpoint.state["micro_batch"] == 1
    assert large.checkpoint.state["micro_batch"] == (4 if name == "ramp" else 8)
    assert chosen(small) == chosen(large)
    for key in ("loss", "gradient_norm"):
        expected = [record[key] for record in large.metrics()]
        assert [record[key] for record in small.metrics()] == pytest.approx(expected, rel=1e-4)


def test_a_replay_follows_the_sizes_that_its_steps_had_by_the_clock(
    recipe_file: Path, small_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill behind step 9: steps 6 to 9 are of the lengths and tokens they had, and the next goes on from there."""

    class Killed(BaseException):
        pass

    def die_at_9(self: Metrics, step: dict[str, Any]) -> None:
        record(self, step)
        if step["step"] == 9:
            raise Killed

    record, seconds = Metrics.step, itertools.count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))  # a step takes one
    settings = ("curriculum={ lengths = [6, 8, 12, 16], stage = '3s' }", "batch.ramp={ start = 32, over = '16s' }")
    recipe = Recipe.load(recipe_file, *settings, "evaluation.every=never", "checkpoint.every=5 steps")
    with monkeypatch.context() as patch:
        patch.setattr(Metrics, "step", die_at_9)
        with pytest.raises(Killed):
            train(recipe, data=small_corpus.path, out=tmp_path / "run")
    killed = chosen(load(tmp_path / "run"))
    resumed = train(recipe, data=small_corpus.path, out=tmp_path / "run")
    assert [r["attempt"] for r in resumed.metrics()] == [1] * 5 + [2] * 7
    assert chosen(resumed)[:9] == killed
    assert len(set(killed[5:])) > 1
    assert chosen(resumed)[9][:2] == (64, 16)  # at 9 seconds of 16, by the clock of steps


@pytest.mark.parametrize("background", ["true", "false"])
def test_eight_bit_adamw_goes_on_bit_for_bit(
    background: str, recipe_file: Path, small_corpus: Corpus, tmp_path: Path
) -> None:
    eight_bit = ["optimizer={kind='adamw8bit', lr=1e-2}", "model.dim=32", "model.vocab_size=264"]
    recipe = Recipe.load(recipe_file, *eight_bit, "checkpoint.every=2steps", f"checkpoint.background={background}")
    undisturbed = train(recipe, data=small_corpus.path, out=tmp_path / "undisturbed")
    saved = load_file(undisturbed.checkpoint.path / "optimizer.safetensors")
    assert saved["embedding.weight/exp_avg.codes"].dtype == torch.uint8
    with stopping_in(6, 1):
        train(recipe, data=small_corpus.path, out=tmp_path / "run")
    assert_same(train(recipe, data=small_corpus.path, out=tmp_path / "run"), undisturbed)
    assert {checked.problem for checked in verify(tmp_path / "run")} == {None}
    losses = [record["loss"] for record in undisturbed.metrics()]
    assert losses[-1] < losses[0] - 0.3
