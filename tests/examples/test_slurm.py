"""The Slurm script, with Slurm's commands played by small ones: what it starts, and when it queues itself again."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daybreak import load
from daybreak.data.shards import Corpus

SCRIPT = Path(__file__).parents[2] / "examples" / "slurm" / "train.sbatch"
PYTHON = shlex.quote(sys.executable)
# Each copy of a job step is a node; all of them are this machine.
SRUN = """
[ "$1" = --kill-on-bad-exit=1 ] && shift
for ((node = 0; node < SLURM_JOB_NUM_NODES; node++)); do "$@" & processes="$processes $!"; done
for process in $processes; do wait "$process" || code=$?; done
exit ${code:-0}
"""
SCONTROL = """
case $1 in show) echo 127.0.0.1 ;; requeue) echo "$2" >>requeued ;; esac
"""
# torchrun as far as the script can tell: it starts a program, and calls any exit code but 0 a failure.
TORCHRUN = """
echo "$@" >>torchrun
while [ "$1" != --no-python ]; do shift; done
shift
"$@" || exit 1
"""
# daybreak, which ends as it is told.
DAYBREAK = """
echo "$@" >>daybreak
while [ "$1" != --out ]; do shift; done
mkdir -p "$2"
[ "$ENDS_WITH" = 0 ] && touch "$2/finished.json"
exit "$ENDS_WITH"
"""


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """The environment of a job on two nodes, of which ten minutes and a bit more are left."""
    (tmp_path / "bin").mkdir()
    commands = {"srun": SRUN, "scontrol": SCONTROL, "torchrun": TORCHRUN, "daybreak": DAYBREAK}
    for name, body in commands.items():
        (tmp_path / "bin" / name).write_text(f"#!/usr/bin/env bash\n{body}")
        (tmp_path / "bin" / name).chmod(0o755)
    return os.environ | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "8",
        "SLURM_JOB_END_TIME": str(int(time.time()) + 2400),
    }


def submit(folder: Path, job: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", SCRIPT, *words], cwd=folder, env=job, capture_output=True, text=True, check=False)


def test_the_script_has_nothing_that_shellcheck_would_mend() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    subprocess.run([shellcheck, "--severity", "style", SCRIPT], check=True)


def test_what_is_started_is_told_how_long_and_how_many(job: dict[str, str], tmp_path: Path) -> None:
    done = submit(tmp_path, job | {"ENDS_WITH": "0"}, "runs/a b", "gpt2", "--data", "my data", "budget=4 steps")
    assert done.returncode == 0, done.stderr
    started = (tmp_path / "torchrun").read_text().splitlines()
    assert len(started) == 2
    assert "--nnodes 2 --nproc-per-node 8 " in started[0]
    assert "--rdzv-endpoint 127.0.0.1:29500 " in started[0]
    words = (tmp_path / "daybreak").read_text().splitlines()[0].split()
    assert words[:8] == ["train", "gpt2", "--data", "my", "data", "budget=4", "steps", "--out"]
    assert words[-2] == "--stop-after"
    assert 1700 < int(words[-1].removesuffix("s")) <= 1800
    assert (tmp_path / "runs" / "a b" / "finished.json").exists()
    assert "finished" in done.stdout
    assert not (tmp_path / "requeued").exists()


def test_what_stopped_as_asked_is_queued_again(job: dict[str, str], tmp_path: Path) -> None:
    done = submit(tmp_path, job | {"ENDS_WITH": "3"}, "run", "gpt2")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "requeued").read_text() == "77\n"


@pytest.mark.parametrize("code", ["1", "2", "4", "137"])
def test_what_failed_is_not(code: str, job: dict[str, str], tmp_path: Path) -> None:
    done = submit(tmp_path, job | {"ENDS_WITH": code}, "run", "gpt2")
    assert done.returncode == 1
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize(
    ("lacking", "said"), [("SLURM_GPUS_ON_NODE", "RANKS_PER_NODE"), ("SLURM_JOB_END_TIME", "does not say when")]
)
def test_what_slurm_does_not_say_is_asked_for(lacking: str, said: str, job: dict[str, str], tmp_path: Path) -> None:
    del job[lacking]
    done = submit(tmp_path, job, "run", "gpt2")
    assert done.returncode == 1
    assert said in done.stderr
    assert submit(tmp_path, job, "run").returncode == 2


@pytest.mark.slow
def test_two_nodes_train_in_two_jobs(job: dict[str, str], corpus: Corpus, tmp_path: Path) -> None:
    """With torchrun and daybreak themselves: two ranks, a rank a node, over gloo."""
    for name, module in {"torchrun": "torch.distributed.run", "daybreak": "daybreak"}.items():
        (tmp_path / "bin" / name).write_text(f'#!/usr/bin/env bash\nexec {PYTHON} -m {module} "$@"\n')
    small = ["model.layers=1", "model.dim=16", "model.heads=2", "batch.tokens=64", "evaluation.tokens=100"]
    small += ["data.tokenizer=bytes", "data.window=16", "model.context=16", "model.vocab_size=257", "budget=60s"]
    words = ("run", "gpt2-tiny", *small, "--data", str(corpus.path))
    job |= {"RANKS_PER_NODE": "1", "OMP_NUM_THREADS": "1", "PORT": "29533"}
    first = submit(tmp_path, job | {"SLURM_JOB_END_TIME": str(int(time.time()) + 630)}, *words)
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "requeued").exists()
    begun = load(tmp_path / "run")
    assert not begun.finished
    assert begun.execution.ranks == 2
    again = submit(tmp_path, job | {"SLURM_RESTART_COUNT": "1"}, *words)
    assert again.returncode == 0, again.stderr
    run = load(tmp_path / "run")
    assert run.finished
    assert run.spent.steps > begun.spent.steps
    attempts = {record["attempt"] for record in run.metrics()}
    assert attempts == {1, 2}
