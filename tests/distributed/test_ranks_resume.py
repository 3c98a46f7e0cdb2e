"""Runs of several ranks go on: bit for bit on as many, and on fewer, more or other ones as the same run."""

import signal
from collections.abc import Callable
from dataclasses import replace

import pytest
from rank_processes import FSDP, STEPS, UNDISTURBED, Launcher, RanksRun, Sitting
from safetensors.torch import load_file

from daybreak.run import Run

LOSS, NORM = 1e-5, 1e-5
COURSE = ("step", "tokens", "loss", "lr", "gradient_norm", "progress", "progress_share", "skipped")
STOPPED_AT = {"ddp-2": 3, "ddp-3": 5, "fsdp-2": 3}
resumed = pytest.mark.parametrize("name", STOPPED_AT)


def stopped(sitting: Sitting, step: int, rank: int = 1) -> Sitting:
    """One of whose ranks alone is asked to stop, once it has done a step."""
    return replace(sitting, of_rank={rank: {"signals": {str(step): signal.SIGTERM}}})


def stopped_and_resumed(launcher: Launcher, name: str) -> RanksRun:
    undisturbed = UNDISTURBED[name]
    return launcher.run(f"{name}-resumed", stopped(undisturbed, STOPPED_AT[name]), undisturbed)


@resumed
def test_one_rank_asked_to_stop_stops_all_at_the_same_step_with_exit_code_3(name: str, launcher: Launcher) -> None:
    run = stopped_and_resumed(launcher, name)
    count = len(run.ranks)
    assert run.codes == [[3] * count, [0] * count]
    for rank in run.sittings[0]:
        assert (rank.seen["steps"], rank.seen["finished"]) == (STOPPED_AT[name], False)
    assert f"stopped and saved at step {STOPPED_AT[name]}" in run.sittings[0][0].errors


@resumed
def test_a_run_goes_on_bit_for_bit_on_as_many_ranks(name: str, launcher: Launcher) -> None:
    run, undisturbed = stopped_and_resumed(launcher, name), launcher.run(name, UNDISTURBED[name])
    assert run.column("attempt") == [1] * STOPPED_AT[name] + [2] * (STEPS - STOPPED_AT[name])
    assert run.course(*COURSE) == undisturbed.course(*COURSE)
    measured = ("step", "loss", "bits_per_byte")
    assert run.course(*measured, kind="validation") == undisturbed.course(*measured, kind="validation")
    assert run.course("step", "text", kind="sample") == undisturbed.course("step", "text", kind="sample")
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert (run.checkpoint / file).read_bytes() == (undisturbed.checkpoint / file).read_bytes()


@pytest.mark.slow
def test_eight_bit_moments_go_on_bit_for_bit_on_as_many_ranks(launcher: Launcher) -> None:
    eight_bit = Sitting(2, ("optimizer={ kind = 'adamw8bit', lr = 1e-2 }", "model.dim=32"))
    undisturbed = launcher.run("eight-bit", eight_bit)
    run = launcher.run("eight-bit-resumed", stopped(eight_bit, 3), eight_bit)
    assert run.codes == [[3, 3], [0, 0]]
    assert run.course(*COURSE) == undisturbed.course(*COURSE)
    assert any(name.endswith("/exp_avg.codes") for name in load_file(run.checkpoint / "optimizer.safetensors"))
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert (run.checkpoint / file).read_bytes() == (undisturbed.checkpoint / file).read_bytes()


def test_another_recipe_is_refused_once_and_a_finished_run_is_left_alone(launcher: Launcher) -> None:
    sittings = [Sitting(2), Sitting(2, ("optimizer.lr=3e-3",)), Sitting(2)]
    run = launcher.run("again", *sittings)
    _, refused, finished = run.sittings
    assert run.codes == [[0, 0], [2, 4], [0, 0]]
    assert "optimizer.lr: 0.003 here, 0.01 there" in refused[0].errors
    assert not refused[1].errors
    assert "is finished" in finished[0].errors
    assert not finished[1].errors
    assert [rank.seen["steps"] for rank in finished] == [STEPS, STEPS]
    assert run.column("attempt") == [1] * STEPS


@pytest.fixture(scope="module")
def changing(launcher: Launcher) -> RanksRun:
    """Two ranks with DDP, then one, then two with FSDP2."""
    return launcher.run("changing", stopped(Sitting(2), 3), stopped(Sitting(1), 5, rank=0), Sitting(2, (FSDP,)))


def test_a_run_goes_on_on_fewer_ranks_and_on_more(changing: RanksRun) -> None:
    assert changing.codes == [[3, 3], [3], [0, 0]]
    assert changing.column("attempt") == [1, 1, 1, 2, 2, 3, 3, 3]
    assert "the run used 2 ranks, now 1" in changing.sittings[1][0].errors
    assert "the run used 1 ranks, now 2" in changing.sittings[2][0].errors


def test_other_ranks_go_on_with_the_same_rows(changing: RanksRun, rows_of_steps: dict[int, list[int]]) -> None:
    assert changing.rows == rows_of_steps


def assert_like_one(run: RanksRun, one: Run) -> None:
    for name in ("step", "tokens", "lr", "progress", "progress_share"):
        assert run.column(name) == [record[name] for record in one.metrics()]
    assert run.column("loss") == pytest.approx([record["loss"] for record in one.metrics()], rel=LOSS)
    assert run.column("gradient_norm") == pytest.approx([record["gradient_norm"] for record in one.metrics()], rel=NORM)


def test_other_ranks_go_on_with_the_same_rates_and_losses(changing: RanksRun, alone: Callable[..., Run]) -> None:
    assert_like_one(changing, alone())


def test_another_micro_batch_goes_on_with_the_same_rows_rates_and_losses(
    launcher: Launcher, alone: Callable[..., Run], rows_of_steps: dict[int, list[int]]
) -> None:
    sittings = [Sitting(1, (f"execution.micro_batch={rows}",)) for rows in (6, 1)]
    run = launcher.run("micro-batches", stopped(sittings[0], 3, rank=0), sittings[1])
    assert run.codes == [[3], [0]]
    assert run.rows == rows_of_steps
    assert_like_one(run, alone())
