"""What goes wrong on one rank is seen by all: they skip together, roll back together, and give up together."""

import pytest
from rank_processes import FSDP, Launcher, RanksRun, Sitting

DDP = "parallel.kind=ddp"
LOSS = 1e-5
both_kinds = pytest.mark.parametrize("kind", [DDP, pytest.param(FSDP, marks=pytest.mark.slow)])


def poisoned(launcher: Launcher, kind: str) -> RanksRun:
    """The second rank's gradient is not a number in the fourth step."""
    sitting = Sitting(2, (kind,), of_rank={1: {"poison": [4]}}, of_all={"digests": True})
    return launcher.run(f"poisoned-{kind}", sitting)


@both_kinds
def test_a_gradient_that_is_no_number_on_one_rank_is_skipped_by_all(kind: str, launcher: Launcher) -> None:
    run = poisoned(launcher, kind)
    assert run.codes == [[0, 0]]
    assert run.column("skipped") == [0, 0, 0, 1, 1, 1, 1, 1]
    assert [norm is None for norm in run.column("gradient_norm")] == [step == 4 for step in range(1, 9)]
    assert all(loss is not None for loss in run.column("loss"))


@both_kinds
def test_a_skipped_step_leaves_weights_and_optimizer_untouched_on_all_ranks(kind: str, launcher: Launcher) -> None:
    digests, others = (rank.seen["digests"] for rank in poisoned(launcher, kind).ranks)
    assert digests == others
    assert digests["3"] == digests["4"]
    assert len(set(digests.values())) == 7


@both_kinds
def test_ranks_go_on_behind_a_skipped_step_as_one_would(kind: str, launcher: Launcher) -> None:
    one = launcher.run("poisoned-one", Sitting(1, of_all={"poison": [4]}))
    assert one.codes == [[0]]
    assert poisoned(launcher, kind).column("loss") == pytest.approx(one.column("loss"), rel=LOSS)


@both_kinds
def test_too_many_skipped_steps_end_all_ranks_and_name_the_last_good_checkpoint_once(
    kind: str, launcher: Launcher
) -> None:
    overrides = (kind, "guard.most_skipped=2", "checkpoint.every=2steps")
    run = launcher.run(f"hopeless-{kind}", Sitting(2, overrides, of_rank={1: {"poison": [5, 6]}}))
    assert all(code for code in run.codes[0])
    first, second = run.ranks
    assert run.codes[0][0] == 2
    assert "2 steps in a row" in first.errors
    assert str(run.out / "checkpoints" / "step-00000004") in first.errors
    assert not second.errors


@both_kinds
def test_a_spike_on_one_rank_takes_all_back_to_the_last_checkpoint(kind: str, launcher: Launcher) -> None:
    overrides = (kind, "budget=12steps", "guard.spike=4", "guard.spike_window=8", "checkpoint.every=4steps")
    sitting = Sitting(2, overrides, of_rank={1: {"raised_loss": {"10": 1e5}}}, of_all={"digests": True})
    run = launcher.run(f"spike-{kind}", sitting)
    assert run.codes == [[0, 0]]
    assert run.course("step", "back_to", kind="rollback") == [(10, 8)]
    digests, others = (rank.seen["digests"] for rank in run.ranks)
    assert digests == others
    assert digests["10"] == digests["8"] != digests["9"]
    assert len(set(digests.values())) == 11
