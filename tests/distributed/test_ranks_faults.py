"""Ranks that die, hang, are told to stop or make a mistake: all end, with one message that says which and where."""

import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from rank_processes import FSDP, Launcher, RankProcess, Sitting, wait_for

from daybreak.checkpoint import list_checkpoints
from daybreak.training.metrics import read_metrics

ENDLESS = ("budget=1000000steps", "evaluation.every=100%", "checkpoint.every=100%")
SECONDS_TO_NOTICE = 10.0
Case = tuple[signal.Signals, int]  # what a rank is sent, and which rank
LOST: list[Case] = [(signal.SIGKILL, 0), (signal.SIGKILL, 1), (signal.SIGSTOP, 0), (signal.SIGSTOP, 1)]


def steps_done(out: Path) -> int:
    return max((record["step"] for record in read_metrics(out / "metrics.jsonl", "train")), default=0)


def seconds_of_steps(out: Path) -> float:
    """From the first recorded step to the last."""
    elapsed = [record["elapsed_seconds"] for record in read_metrics(out / "metrics.jsonl", "train")]
    return max(elapsed, default=0.0) - min(elapsed, default=0.0)


@dataclass(frozen=True)
class Loss:
    """A rank that was lost, the one that was left, and how long it took to end."""

    lost: RankProcess
    left: RankProcess
    seconds: float


@pytest.fixture(scope="module")
def losses(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Case, Loss]]:
    """Two ranks for each case, all at once, since most of it is waiting."""
    folder = tmp_path_factory.mktemp("lost")
    sitting = Sitting(2, (*ENDLESS, "parallel.timeout=3s"))
    outs = {case: folder / f"run-{case[0].name}-{case[1]}" for case in LOST}
    with ExitStack() as stack:
        pairs = {
            case: stack.enter_context(launcher.started(sitting, folder / out.name / "ranks", out))
            for case, out in outs.items()
        }
        for out in outs.values():
            # Five times what a rank lets pass before it tells the others its stage.
            wait_for(lambda out=out: seconds_of_steps(out) > 1.5, "a second and a half of steps")
        sent: dict[Case, float] = {}
        for case in LOST:
            number, rank = case
            sent[case] = time.monotonic()
            pairs[case][rank].send(number)
        seconds: dict[Case, float] = {}

        def all_left_have_ended() -> bool:
            for case in LOST:
                if pairs[case][1 - case[1]].ended:
                    seconds.setdefault(case, time.monotonic() - sent[case])
            return len(seconds) == len(LOST)

        wait_for(all_left_have_ended, "the end of the ranks that were left")
        yield {case: Loss(pairs[case][case[1]], pairs[case][1 - case[1]], seconds[case]) for case in LOST}


each_loss = pytest.mark.parametrize("case", LOST, ids=[f"{number.name}-{rank}" for number, rank in LOST])


@each_loss
def test_a_lost_rank_ends_the_other_soon_with_exit_code_4(case: Case, losses: dict[Case, Loss]) -> None:
    loss = losses[case]
    assert loss.left.code == 4
    assert loss.seconds < SECONDS_TO_NOTICE


@each_loss
def test_a_lost_rank_is_named_with_its_stage_in_one_message(case: Case, losses: dict[Case, Loss]) -> None:
    loss = losses[case]
    (line,) = [line for line in loss.left.errors.splitlines() if line.startswith("error:")]
    assert line.startswith(f"error: rank {case[1]} (process {loss.lost.process} on ")
    assert re.search(r"stage 'step \d+'", line)
    assert "The same command goes on from the last checkpoint" in line
    assert "Traceback" not in loss.left.errors


def test_a_rank_that_is_terminated_stops_all_which_save_once_and_go_on(launcher: Launcher, tmp_path: Path) -> None:
    sitting, out = Sitting(2, ENDLESS), tmp_path / "run"
    with launcher.started(sitting, tmp_path / "first", out) as ranks:
        wait_for(lambda: steps_done(out) >= 3, "the third step")
        ranks[1].send(signal.SIGTERM)
        assert [rank.code for rank in ranks] == [3, 3]
    step = ranks[0].seen["steps"]
    assert ranks[1].seen["steps"] == step >= 3
    assert [path.name for path in list_checkpoints(out / "checkpoints")] == [f"step-{step:08d}"]
    again = Sitting(2, ENDLESS, of_rank={0: {"signals": {str(step + 2): signal.SIGTERM}}})
    with launcher.started(again, tmp_path / "again", out) as ranks:
        assert [rank.code for rank in ranks] == [3, 3]
    records = read_metrics(out / "metrics.jsonl", "train")
    assert [record["step"] for record in records] == list(range(1, step + 3))
    assert [record["attempt"] for record in records] == [1] * step + [2] * 2


@pytest.mark.parametrize(
    ("rank", "kind"),
    [
        (1, "parallel.kind=ddp"),
        (0, FSDP),
        pytest.param(0, "parallel.kind=ddp", marks=pytest.mark.slow),
        pytest.param(1, FSDP, marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_is_terminated_before_the_first_step_stops_all(rank: int, kind: str, launcher: Launcher) -> None:
    overrides = (kind, "parallel.stall=30s")
    early = Sitting(2, overrides, of_rank={rank: {"signal_in_warm_up": signal.SIGTERM}})
    run = launcher.run(f"early-{rank}-{kind}", early, Sitting(2, overrides))
    assert run.codes == [[3, 3], [0, 0]]
    assert [rank.seen["steps"] for rank in run.sittings[0]] == [0, 0]


@pytest.mark.slow
def test_a_rank_that_comes_late_is_waited_for(launcher: Launcher) -> None:
    """Longer than a rank may be silent later on."""
    run = launcher.run("late", Sitting(2, ("parallel.timeout=3s",), of_rank={1: {"late": 4.0}}))
    assert run.codes == [[0, 0]]


def test_a_batch_that_does_not_divide_is_refused_once_with_the_nearest_that_does(launcher: Launcher) -> None:
    run = launcher.run("undivided", Sitting(2, ("batch.tokens=176",)))
    first, second = run.ranks
    assert (first.code, second.code) == (2, 4)
    assert first.errors.count("error:") == 1
    assert "11 rows" in first.errors
    nearest = re.search(r"batch\.tokens=(\d+)", first.errors)
    assert nearest is not None
    assert int(nearest[1]) in (160, 192)
    assert not second.errors
    assert not (run.out / "recipe.toml").exists()


def test_a_mistake_on_one_rank_ends_all_and_names_it(launcher: Launcher, tmp_path: Path) -> None:
    """As where a node lacks the corpus."""
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "corpus").symlink_to(launcher.corpus)
    with launcher.started(Sitting(2), tmp_path, tmp_path / "run", data="corpus") as (first, second):
        assert (first.code, second.code) == (4, 2)
    message = second.errors.removeprefix("error: rank 1: ")
    assert message.startswith("corpus")
    assert len(message.splitlines()) == 1
    assert first.errors == f"error: rank 1 ended with an error: {message}"
    assert not (tmp_path / "run" / "checkpoints").exists()
