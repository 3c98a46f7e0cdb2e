"""Ranks as torchrun starts them, and starts them anew."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rank_processes import FSDP, STEPS, UNDISTURBED, Launcher, environment, free_port

from daybreak import load
from daybreak.checkpoint import list_checkpoints
from daybreak.run import Run
from daybreak.training.metrics import read_metrics

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
SECONDS_TO_WAIT = 240
# The command line, but that the second rank is killed in its fifth step, the first time.
KILLED_ONCE = f"""
import os
from daybreak.cli import main
from daybreak.training.metrics import Metrics

record_step = Metrics.step

def record_and_die(self, record):
    record_step(self, record)
    if record["step"] == 5 and (os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]) == ("1", "0"):
        os.kill(os.getpid(), {int(signal.SIGKILL)})

Metrics.step = record_and_die
main()
"""


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TORCHRUN, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Its exit code and what it wrote; nothing that it started is left behind."""
    try:
        output, errors = process.communicate(timeout=SECONDS_TO_WAIT)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return process.returncode, output, errors


def training(launcher: Launcher, out: Path, *overrides: str) -> tuple[str, ...]:
    return ("train", str(launcher.recipe), *overrides, "--data", str(launcher.corpus), "--out", str(out))


def test_torchrun_trains_on_all_its_ranks_and_saves_once(launcher: Launcher, tmp_path: Path) -> None:
    overrides = UNDISTURBED["ddp-2"].overrides
    words = training(launcher, tmp_path / "run", *overrides)
    code, output, errors = finish(start("--standalone", "-m", "daybreak", *words))
    assert code == 0, errors
    assert output.count("validation loss") == 1
    assert "2 ranks (ddp)" in errors
    undisturbed = launcher.run("ddp-2", UNDISTURBED["ddp-2"])
    kept = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert [path.name for path in kept] == [path.name for path in list_checkpoints(undisturbed.out / "checkpoints")]
    assert (kept[-1] / "model.safetensors").read_bytes() == (undisturbed.checkpoint / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_killed_rank_that_torchrun_starts_anew_goes_on_from_the_last_checkpoint(
    launcher: Launcher, tmp_path: Path
) -> None:
    (tmp_path / "killed_once.py").write_text(KILLED_ONCE)
    words = training(launcher, tmp_path / "run", *UNDISTURBED["ddp-2"].overrides, "checkpoint.every=2steps")
    restarts = ("--standalone", "--max-restarts", "1", str(tmp_path / "killed_once.py"))
    code, _, errors = finish(start(*restarts, *words))
    assert code == 0, errors
    assert "going on from step 4" in errors
    records = read_metrics(tmp_path / "run" / "metrics.jsonl", "train")
    assert [record["attempt"] for record in records] == [1] * 4 + [2] * (STEPS - 4)
    run, undisturbed = load(tmp_path / "run"), launcher.run("ddp-2", UNDISTURBED["ddp-2"])
    assert [record["loss"] for record in records] == undisturbed.column("loss")
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert (run.checkpoint.path / file).read_bytes() == (undisturbed.checkpoint / file).read_bytes()


@pytest.mark.slow
def test_two_nodes_shard_within_and_replicate_across_as_one_rank_computes(
    launcher: Launcher, ranks_folder: Path, tmp_path: Path, alone: Callable[..., Run]
) -> None:
    meeting = ("--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", str(free_port(ranks_folder)))
    shared = (FSDP, "parallel.replicate=true", "execution.micro_batch=1")
    words = training(launcher, tmp_path / "run", *shared)
    nodes = [start(*meeting, "--node-rank", str(rank), "-m", "daybreak", *words) for rank in range(2)]
    ended = [finish(node) for node in nodes]
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert sum(output.count("validation loss") for _, output, _ in ended) == 1
    run, expected = load(tmp_path / "run"), alone()
    assert run.execution.ranks == 4
    assert [record["lr"] for record in run.metrics()] == [record["lr"] for record in expected.metrics()]
    losses = [record["loss"] for record in expected.metrics()]
    assert [record["loss"] for record in run.metrics()] == pytest.approx(losses, rel=1e-5)
