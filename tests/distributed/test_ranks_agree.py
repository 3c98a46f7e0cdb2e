"""Ranks together compute what one computes: the same rows, rates and losses, under DDP and under FSDP2."""

import re
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_driver import fingerprints
from rank_processes import FSDP, MICRO_BATCH, STEPS, UNDISTURBED, WATCHED, WIDE, Launcher, RanksRun, Sitting
from safetensors.torch import load_file

from daybreak import load
from daybreak.checkpoint import list_checkpoints
from daybreak.compose import build_validation
from daybreak.data.batches import Batches
from daybreak.data.order import Order
from daybreak.data.reading import Reading
from daybreak.data.shards import Corpus
from daybreak.data.windows import StreamWindows
from daybreak.evaluate.loss import Validation
from daybreak.identity import read_execution
from daybreak.run import Run

# Ranks add the same gradients in another order. Measured over all these runs: losses 1.5e-7, norms 5e-7 and validation
# losses 2e-7 off, relative; weights 5e-6, where a step may move them by 2e-3 or 1e-2.
LOSS, NORM, VALIDATION, WEIGHTS = 1e-5, 1e-5, 1e-6, 1e-4
SIZES = 1e-3
# Newton-Schulz in bf16 makes more of a last bit. Measured: 7e-6, 4e-4, and 5e-3, where a step may move them by 2e-2.
BF16_LOSS = 2e-3
MUON_LOSS, MUON_NORM, MUON_WEIGHTS = 1e-4, 3e-3, 2e-2

everywhere = pytest.mark.parametrize(
    "run",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in ("fsdp-3", "hsdp-4"))) for name in UNDISTURBED],
    indirect=True,
)


@pytest.fixture
def run(request: pytest.FixtureRequest, launcher: Launcher) -> RanksRun:
    return launcher.run(request.param, UNDISTURBED[request.param])


@pytest.fixture
def one(run: RanksRun, alone: Callable[..., Run]) -> Run:
    """The run of one rank that a run is to be like."""
    return alone(*WATCHED, *(WIDE if load(run.out).recipe.model.dim == 128 else ()))


def values(records: list[dict[str, Any]], name: str) -> list[Any]:
    return [record[name] for record in records]


def assert_near(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor], tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) <= tolerance


@everywhere
def test_all_ranks_end_well(run: RanksRun) -> None:
    assert run.codes == [[0] * len(run.ranks)]
    for rank in run.ranks:
        assert (rank.seen["steps"], rank.seen["tokens"], rank.seen["finished"]) == (STEPS, 192 * STEPS, True)


@everywhere
def test_only_the_first_rank_speaks(run: RanksRun) -> None:
    first, *others = run.ranks
    assert f"{len(run.ranks)} ranks" in first.errors
    assert "validation loss" in first.output
    assert [rank.errors + rank.output for rank in others] == [""] * len(others)


@everywhere
def test_sizes_by_layer_are_those_of_one_rank(run: RanksRun, one: Run) -> None:
    ours, theirs = run.course("step", "update_size", "largest_logit", kind="layers"), one.metrics("layers")
    assert len(ours) == len(theirs) == STEPS
    for (step, updates, logits), record in zip(ours, theirs, strict=True):
        assert step == record["step"]
        assert updates == pytest.approx(record["update_size"], rel=SIZES)
        assert logits == pytest.approx(record["largest_logit"], rel=SIZES)


@everywhere
def test_every_step_stands_where_it_stands_on_one_rank(run: RanksRun, one: Run) -> None:
    for name in ("step", "tokens", "lr", "progress", "progress_share", "skipped", "attempt"):
        assert run.column(name) == values(one.metrics(), name)


@everywhere
def test_every_row_of_a_step_is_on_exactly_one_rank(run: RanksRun, rows_of_steps: dict[int, list[int]]) -> None:
    assert run.rows == rows_of_steps
    assert all(len(set(rows)) == len(rows) for rows in rows_of_steps.values())


@everywhere
def test_losses_and_gradient_norms_are_those_of_one_rank(run: RanksRun, one: Run) -> None:
    assert run.column("loss") == pytest.approx(values(one.metrics(), "loss"), rel=LOSS)
    assert run.column("gradient_norm") == pytest.approx(values(one.metrics(), "gradient_norm"), rel=NORM)
    assert run.column("loss")[-1] < run.column("loss")[0] - 0.5


@everywhere
def test_weights_end_as_those_of_one_rank(run: RanksRun, one: Run) -> None:
    assert_near(load_file(run.checkpoint / "model.safetensors"), one.checkpoint.weights(), WEIGHTS)


@everywhere
def test_validation_losses_are_those_of_one_rank(run: RanksRun, one: Run) -> None:
    expected = one.metrics("validation")
    assert run.column("step", "validation") == values(expected, "step") == [2, 4, 6, 8]
    assert run.column("loss", "validation") == pytest.approx(values(expected, "loss"), rel=VALIDATION)
    assert load(run.out).final_loss == run.column("loss", "validation")[-1]


@everywhere
def test_the_same_weights_have_the_same_validation_loss_on_one_rank_to_the_bit(run: RanksRun, corpus: Corpus) -> None:
    loaded = load(run.out)
    validation = build_validation(
        loaded.recipe, loaded.execution, Reading(loaded.recipe.data, (corpus,)), torch.device("cpu"), sample=224
    )
    assert isinstance(validation, Validation)
    batches = -(-len(validation.starts) // validation.batch)
    assert batches % len(run.ranks)  # some rank has none left at the end
    measured = validation.measure(loaded.model)
    assert measured is not None
    assert measured.loss == run.column("loss", "validation")[-1]
    assert measured.bits_per_byte == run.column("bits_per_byte", "validation")[-1]


@everywhere
def test_samples_are_drawn_by_all_ranks_and_recorded_by_one(run: RanksRun) -> None:
    assert run.column("step", "sample") == [4, 8]
    assert all(text.startswith("the day") for (text,) in run.course("text", kind="sample"))


@everywhere
def test_the_checkpoints_that_one_rank_would_keep_are_kept(run: RanksRun, one: Run) -> None:
    kept, expected = (list_checkpoints(path / "checkpoints") for path in (run.out, one.path))
    assert [path.name for path in kept] == [path.name for path in expected]
    assert run.checkpoint.name == f"step-{STEPS:08d}"


@everywhere
def test_the_run_says_how_many_ranks_it_had(run: RanksRun) -> None:
    assert load(run.out).execution.ranks == len(run.ranks)


@pytest.mark.parametrize("name", ["ddp-3", pytest.param("hsdp-4", marks=pytest.mark.slow)])
def test_replicas_hold_the_same_bits_behind_every_step(name: str, launcher: Launcher) -> None:
    run = launcher.run(name, UNDISTURBED[name])
    digests = run.ranks[0].seen["digests"]
    assert len(set(digests.values())) == STEPS
    assert all(rank.seen["digests"] == digests for rank in run.ranks)


def test_ddp_brings_gradients_together_once_a_step(launcher: Launcher) -> None:
    run = launcher.run("counted", Sitting(2, (*WIDE, "budget=4steps"), of_all={"count_reductions": True}))
    for rank in run.ranks:
        assert len(rank.seen["rows"]["0"]) == 3 * MICRO_BATCH
        assert rank.seen["reductions"] == {"1": 1, "2": 1, "3": 1, "4": 1}
        assert all(buckets > 1 for buckets in rank.seen["buckets"].values())


def test_muon_on_shards_is_that_of_one_rank(launcher: Launcher, alone: Callable[..., Run]) -> None:
    muon = "optimizer={ kind = 'muon', eps = 1e-6 }"
    run, expected = launcher.run("muon", Sitting(2, (muon, FSDP))), alone(muon)
    assert run.codes == [[0, 0]]
    assert run.column("lr") == values(expected.metrics(), "lr")
    assert run.column("loss") == pytest.approx(values(expected.metrics(), "loss"), rel=MUON_LOSS)
    assert run.column("gradient_norm") == pytest.approx(values(expected.metrics(), "gradient_norm"), rel=MUON_NORM)
    assert_near(load_file(run.checkpoint / "model.safetensors"), expected.checkpoint.weights(), MUON_WEIGHTS)
    assert run.column("loss")[-1] < run.column("loss")[0] - 0.3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parallel.kind=ddp", FSDP])
def test_compiled_blocks_on_two_ranks_have_the_losses_of_one(
    kind: str, launcher: Launcher, alone: Callable[..., Run]
) -> None:
    run = launcher.run(f"compiled-{kind}", Sitting(2, ("execution.compile=true", kind)))
    assert run.codes == [[0, 0]]
    assert load(run.out).execution.compile
    assert run.column("loss") == pytest.approx(values(alone().metrics(), "loss"), rel=LOSS)


PACKED = ("data.packing=documents", "model.position.kind=learned")
GROWING = (
    "curriculum={ lengths = [6, 8, 16], stage = '2 steps' }",
    "batch.ramp={ start = 64, over = '50%' }",
    "budget=1200 tokens",
    "schedule.warmup=10%",
)


def test_ranks_share_steps_that_grow(launcher: Launcher, alone: Callable[..., Run], corpus: Corpus) -> None:
    """Rows that do not divide a window, too: each is on one rank, with the dropout that it has on one rank."""
    run, expected = launcher.run("growing", Sitting(2, GROWING)), alone(*GROWING)
    assert run.codes == [[0, 0]]
    sizes = run.course("tokens", "batch_tokens", "length")
    assert {length for _, _, length in sizes} == {6, 8, 16}
    assert {tokens for _, tokens, _ in sizes} == {64, 128, 192}
    for name in ("step", "tokens", "batch_tokens", "length", "lr", "progress", "progress_share"):
        assert run.column(name) == values(expected.metrics(), name)
    assert run.column("loss") == pytest.approx(values(expected.metrics(), "loss"), rel=LOSS)
    assert run.column("gradient_norm") == pytest.approx(values(expected.metrics(), "gradient_norm"), rel=NORM)
    windows = StreamWindows(corpus.stream("train"), 16)
    with closing(
        Batches(
            windows,
            Order(len(windows), 5),
            length=16,
            windows_per_step=4,
            micro_batch=1,
            seed=5,
            device=torch.device("cpu"),
        )
    ) as batches:
        for after, tokens, length in sizes:
            place = (after - tokens) // 16
            rows = [
                number
                for part in batches.step(place, windows=tokens // 16, length=length)
                for number in fingerprints(part)
            ]
            assert sorted(run.rows[place]) == sorted(rows)


def test_ranks_read_packed_documents_of_which_they_have_unequally_many_targets(
    launcher: Launcher, alone: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAYBREAK_CACHE", str(tmp_path))
    run, expected = launcher.run("packed", Sitting(2, PACKED)), alone(*PACKED)
    assert run.codes == [[0, 0]]
    assert run.ranks[0].errors.count("are padding") == 1
    assert run.column("loss") == pytest.approx(values(expected.metrics(), "loss"), rel=LOSS)
    assert run.column("gradient_norm") == pytest.approx(values(expected.metrics(), "gradient_norm"), rel=NORM)
    validated = [values(each, "loss") for each in (expected.metrics("validation"), run.metrics("validation"))]
    assert validated[1] == pytest.approx(validated[0], rel=VALIDATION)


def test_rows_that_do_not_divide_among_ranks_are_refused(launcher: Launcher) -> None:
    run = launcher.run("undivided-ramp", Sitting(2, ("batch.ramp={ start = 48, over = '50%' }",)))
    assert run.codes == [[2, 4]]
    assert "batch.ramp.start = 48 is 3 rows of 16 tokens" in run.ranks[0].errors
    assert "batch.ramp.start=64" in run.ranks[0].errors


@pytest.mark.parametrize("kind", [pytest.param("parallel.kind=ddp", marks=pytest.mark.slow), FSDP])
def test_recomputed_blocks_on_two_ranks_have_the_losses_of_one(
    kind: str, launcher: Launcher, alone: Callable[..., Run]
) -> None:
    run = launcher.run(f"recomputed-{kind}", Sitting(2, ("execution.recompute=true", kind)))
    assert run.codes == [[0, 0]]
    assert load(run.out).execution.recompute
    assert run.column("loss") == pytest.approx(values(alone().metrics(), "loss"), rel=LOSS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parallel.kind=ddp", FSDP])
def test_bf16_copies_on_two_ranks_have_the_losses_of_one(
    kind: str, launcher: Launcher, alone: Callable[..., Run]
) -> None:
    """Recomputed as well, since both are for large models."""
    copies = ("execution.precision=bf16", "execution.weights=bf16", "execution.recompute=true")
    run = launcher.run(f"copies-{kind}", Sitting(2, (*copies, kind)))
    assert run.codes == [[0, 0]]
    assert run.column("loss") == pytest.approx(values(alone(*copies).metrics(), "loss"), rel=BF16_LOSS)
    assert {str(tensor.dtype) for tensor in load_file(run.checkpoint / "model.safetensors").values()} == {
        "torch.float32"
    }


def test_ranks_with_a_budget_of_time_agree_on_every_moment(launcher: Launcher) -> None:
    """By the first one's clock: intervals in percent fall due together, though the other's clock runs otherwise."""
    settings = ("budget=4s", "counts=train", "evaluation.every=7%", "samples.every=11%", "samples.tokens=2")
    run = launcher.run("time", Sitting(2, settings))
    assert run.codes == [[0, 0]]
    progress = run.column("progress")
    assert progress == sorted(progress)
    assert run.column("lr")[-1] < 0.2 * max(run.column("lr"))
    assert len(run.metrics("validation")) in (14, 15)  # once for each 7 % that a step passes, and at the end
    assert len(run.metrics("sample")) in (8, 9)  # the last step may end short of 99 %


@pytest.mark.parametrize("kind", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_ranks_choose_one_micro_batch_that_fits_on_each(kind: str, launcher: Launcher) -> None:
    """Six rows a rank; the second rank has memory for two."""
    overrides = ("execution.micro_batch=auto", f"parallel.kind={kind}")
    scarce = {1: {"lacks_memory_for": 3}}
    run = launcher.run(f"probed-{kind}", Sitting(2, overrides, of_rank=scarce, of_all={"probes": True}))
    assert run.codes == [[0, 0]]
    first, second = run.ranks
    assert first.seen["micro_batch"] == second.seen["micro_batch"] in (1, 2)
    assert read_execution(run.out).micro_batch == first.seen["micro_batch"]
    assert re.search(r"micro-batch [12], .*tok/s: 1: .*, 2: ", first.errors)
    assert not second.errors
