"""The micro-batch that fits and is fastest, found by measuring: from given times and bytes, and in a real run."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from daybreak import Recipe, train
from daybreak.checkpoint import open_latest
from daybreak.data.batches import Rows
from daybreak.data.shards import Corpus
from daybreak.distributed import ALONE, Ranks
from daybreak.identity import read_execution
from daybreak.model.gpt import GPT, ModelConfig, build
from daybreak.training import probing
from daybreak.training.execution import Execution, ExecutionConfig
from daybreak.training.metrics import Metrics
from daybreak.training.microbatch import Trial, candidates, fastest, has_peaked, rows_that_fit, still_gains
from daybreak.training.probing import Allowance, is_worth_probing, probe_micro_batch

MODEL = ModelConfig(layers=1, heads=2, dim=16, context=16, vocab_size=257)
AMPLE = Allowance(seconds=1e9, rows=0)


def trials(rates: Mapping[int, float]) -> list[Trial]:
    return [Trial(rows, rows / rate) for rows, rate in rates.items()]


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ({1: 100}, 1),
        ({1: 100, 2: 150, 4: 180, 8: 200}, 8),
        ({1: 100, 2: 150, 4: 154, 8: 140}, 2),  # 2.7 % more may be noise
        ({1: 100, 2: 150, 4: 155, 8: 140}, 4),
        ({1: 100, 2: 90, 4: 120}, 4),
        ({1: 100, 2: 102, 4: 104}, 4),  # what grows slowly has grown in the end
    ],
)
def test_more_rows_are_taken_only_where_they_gain(rates: dict[int, float], chosen: int) -> None:
    assert fastest(trials(rates)).rows == chosen


@pytest.mark.parametrize(
    ("rates", "peaked"),
    [
        ({1: 100}, False),
        ({1: 100, 2: 90}, False),
        ({1: 100, 2: 90, 4: 80}, True),
        ({1: 100, 2: 90, 4: 150}, False),
        ({1: 100, 2: 150, 4: 151, 8: 152}, True),
    ],
)
def test_two_trials_without_a_gain_end_the_search(rates: dict[int, float], peaked: bool) -> None:
    assert has_peaked(trials(rates)) == peaked


@pytest.mark.parametrize(
    ("rates", "gains"),
    [({1: 100}, True), ({1: 100, 2: 103}, True), ({1: 100, 2: 102}, False), ({1: 100, 2: 102, 4: 104}, False)],
)
def test_more_rows_might_gain_while_the_last_did(rates: dict[int, float], gains: bool) -> None:
    assert still_gains(trials(rates)) == gains


@given(rows=st.integers(1, 2000), limit=st.integers(1, 3000))
def test_candidates_grow_by_half_and_end_with_the_most_that_fits(rows: int, limit: int) -> None:
    found = candidates(rows, limit)
    assert all(rows % count == 0 for count in found)
    assert found[-1] == max(count for count in range(1, rows + 1) if rows % count == 0 and count <= limit)
    assert all(more >= 1.5 * fewer for fewer, more in pairwise(found))


@given(
    base=st.integers(0, 10**10),
    row=st.integers(10**4, 10**9),
    few=st.integers(1, 16),
    more=st.integers(1, 16),
    fitting=st.integers(1, 5000),
)
def test_on_a_line_what_fits_is_found_from_two_points(base: int, row: int, few: int, more: int, fitting: int) -> None:
    measured = [(count, float(base + row * count)) for count in (few, few + more)]
    assert rows_that_fit(measured[0], measured[1], base + row * (fitting + 0.5)) == fitting
    assert rows_that_fit(measured[0], measured[1], 0) == 1


@pytest.mark.parametrize(
    ("config", "seconds", "steps", "worth_it"),
    [
        (ExecutionConfig(), 120.0, 0, True),
        (ExecutionConfig(), 119.0, 0, False),
        (ExecutionConfig(), None, 1000, True),
        (ExecutionConfig(), None, 999, False),
        (ExecutionConfig(micro_batch=4), 1e6, 0, False),
        (ExecutionConfig(deterministic=True), 1e6, 0, False),
    ],
)
def test_only_a_long_run_that_leaves_the_choice_to_the_machine_is_probed(
    config: ExecutionConfig, seconds: float | None, steps: int, worth_it: bool
) -> None:
    assert is_worth_probing(config, seconds, steps) == worth_it


def step(rows: int, length: int = 16) -> list[Rows]:
    """A step in two micro-batches."""
    tokens = torch.zeros(rows // 2, length, dtype=torch.int64)
    return [Rows(tokens, tokens, torch.zeros(rows // 2, dtype=torch.int64), tokens.numel(), last) for last in (0, 1)]


def execution(micro_batch: int) -> Execution:
    chosen = Execution.choose(
        ExecutionConfig(device="cpu"), MODEL, parameter_bytes=0, rows=64, length=16, seconds=None, ranks=1
    )
    return chosen.model_copy(update={"micro_batch": micro_batch})


def model() -> GPT:
    return build(MODEL, 0, torch.device("cpu"))


@pytest.fixture
def pace(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], float]], list[int]]:
    """Let passes take as long as a function of their rows says; returns what will have been passed."""

    def take(seconds: Callable[[int], float]) -> list[int]:
        passed: list[int] = []

        def pass_rows(passes: object, count: int) -> float:
            passed.append(count)
            return seconds(count)

        monkeypatch.setattr(probing._Passes, "seconds", pass_rows)
        return passed

    return take


Pace = Callable[[Callable[[int], float]], list[int]]


def chosen(estimate: int, allowance: Allowance = AMPLE, rows: int = 64) -> int:
    return probe_micro_batch(model(), step(rows), execution(estimate), allowance, kept_bytes=0, ranks=ALONE)


def test_the_search_ends_behind_the_peak(pace: Pace, capsys: pytest.CaptureFixture[str]) -> None:
    passed = pace(lambda rows: rows * {1: 4.0, 2: 2.0, 4: 1.0}.get(rows, 0.99))
    assert chosen(64) == 4
    assert sorted(set(passed)) == [1, 2, 4, 8, 16]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "micro-batch 4" in said
    assert "tok/s: 1: 4, 2: 8, 4: 16, 8: 16, 16: 16; 64 are estimated to fit" in said


def test_more_rows_than_are_estimated_to_fit_are_not_tried(pace: Pace) -> None:
    passed = pace(lambda rows: 1.0)
    assert chosen(16) == 16
    assert max(passed) == 16


def test_rows_that_do_not_fit_after_all_end_the_search(pace: Pace) -> None:
    passed = pace(lambda rows: 1.0 if rows < 16 else math.inf)
    assert chosen(64) == 8
    assert max(passed) == 16


def test_without_memory_for_one_row_the_estimate_stays_to_be_halved(pace: Pace) -> None:
    pace(lambda rows: math.inf)
    assert chosen(32) == 32


@pytest.mark.parametrize(
    ("allowance", "tried"),
    [
        (Allowance(seconds=100.0, rows=0), [1]),  # two seconds: the first pass, and three more are 4
        (Allowance(seconds=250.0, rows=0), [1, 1, 1, 1]),
        (Allowance(seconds=None, rows=100), [1]),
        (Allowance(seconds=None, rows=250), [1, 1, 1, 1]),
    ],
)
def test_what_would_cost_too_much_is_not_tried_and_the_estimate_stays(
    allowance: Allowance, tried: list[int], pace: Pace
) -> None:
    passed = pace(lambda rows: float(rows))
    assert chosen(32, allowance) == 32
    assert passed == tried


def test_where_the_allowance_ends_on_a_plateau_its_beginning_is_taken(pace: Pace) -> None:
    passed = pace(lambda rows: 2.0 if rows == 1 else 0.75 * rows)
    assert chosen(64, Allowance(seconds=700.0, rows=0)) == 2  # 14 seconds, and three passes of 8 rows take 18
    assert max(passed) == 4


def test_the_model_is_left_without_gradients_and_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    probed, untouched = model(), model()
    probe_micro_batch(probed, step(8), execution(8), AMPLE, kept_bytes=0, ranks=ALONE)
    assert all(parameter.grad is None for parameter in probed.parameters())
    for one, other in zip(probed.parameters(), untouched.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.fixture
def gpu_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int, int], None]]:
    """As if passes ran on a GPU of so many bytes, where rows take so many more on top of some for the model."""

    def install(capacity: int, base: int, row: int) -> None:
        latest: list[int] = []

        def pass_rows(passes: object, count: int) -> float:
            latest.append(count)
            return 1.0

        monkeypatch.setattr(probing._Passes, "seconds", pass_rows)
        monkeypatch.setattr(probing._Passes, "device", torch.device("cuda"))
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: base + row * latest[-1])
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (capacity - base, capacity))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: base)

    return install


@pytest.mark.parametrize(("moment_bytes", "limit"), [(0, 32), (480, 16), (600, 8), (10**6, 1)])
def test_on_a_gpu_what_fits_is_measured_and_leaves_room_for_the_optimizer(
    moment_bytes: int, limit: int, gpu_of: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    gpu_of(capacity=1000, base=100, row=20)  # (0.9 * 1000 - 100 - moments) / 20 rows fit
    without_chunks = execution(2).model_copy(update={"loss_rows": 0})
    found = probe_micro_batch(model(), step(64), without_chunks, AMPLE, kept_bytes=moment_bytes, ranks=ALONE)
    assert found == limit


def test_the_rank_with_the_least_memory_decides(gpu_of: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    def with_the_second_rank(ranks: Ranks, values: Sequence[float]) -> list[float]:
        its_limit = [0.0, 20.0] if list(values) == [40.0, 0.0] else [0.0] * len(values)
        return [own + other for own, other in zip(values, its_limit, strict=True)]

    gpu_of(capacity=1000, base=100, row=20)
    monkeypatch.setattr(Ranks, "sums", with_the_second_rank)
    two = Ranks(rank=0, count=2)
    without_chunks = execution(2).model_copy(update={"loss_rows": 0})
    assert probe_micro_batch(model(), step(64), without_chunks, AMPLE, kept_bytes=0, ranks=two) == 16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_real_gpu_peak_memory_lies_on_the_line() -> None:
    device = torch.device("cuda")
    config = ModelConfig(layers=4, heads=4, dim=256, context=256, vocab_size=4096)
    tokens = torch.zeros(64, 256, dtype=torch.int64, device=device)
    passes = probing._Passes(
        build(config, 0, device), tokens, tokens, torch.zeros(64, dtype=torch.int64, device=device), "bf16", ALONE
    )
    passes.seconds(4)
    few, many, most = (passes.peak_bytes(count) for count in (4, 8, 64))
    assert few + (many - few) / 4 * 60 == pytest.approx(most, rel=0.1)


def interrupt_at(last: int, record: Callable[..., None]) -> Callable[..., None]:
    def record_and_interrupt(metrics: Metrics, step: dict[str, Any]) -> None:
        record(metrics, step)
        if step["step"] == last:
            raise KeyboardInterrupt

    return record_and_interrupt


def test_a_real_run_tries_once_keeps_its_choice_and_goes_on_with_it(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.toml").write_text(
        """
        budget = "6 steps"
        data = { window = 16 }
        batch = { tokens = 256 }
        model = { layers = 1, heads = 2, dim = 16, context = 16, vocab_size = 257 }
        optimizer = { lr = 1e-2 }
        evaluation = { tokens = 64 }
        checkpoint = { every = "2 steps" }
        execution = { threads = 1 }
        """
    )
    recipe, out = Recipe.load(tmp_path / "recipe.toml"), tmp_path / "run"
    monkeypatch.setattr(probing, "_FEWEST_STEPS", 1)
    monkeypatch.setattr(probing, "SHARE_OF_BUDGET", math.inf)
    with monkeypatch.context() as patch:
        patch.setattr(Metrics, "step", interrupt_at(4, Metrics.step))
        with pytest.raises(KeyboardInterrupt):
            train(recipe, data=corpus.path, out=out)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("micro-batch")]
    assert len(said) == 1
    kept = read_execution(out).micro_batch
    assert said[0].startswith(f"micro-batch {kept}, the fewest rows near the highest rate; rows and tok/s: 1: ")
    assert open_latest(out / "checkpoints").state["micro_batch"] == kept

    monkeypatch.setattr("daybreak.compose.probe_micro_batch", lambda *_, **__: pytest.fail("tried again"))
    run = train(recipe, data=corpus.path, out=out)
    assert run.finished
    assert run.execution.micro_batch == kept
