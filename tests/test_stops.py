"""SIGTERM, SIGINT and --stop-after in every stage of a real process: saved once, exit code 3; a second ends at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daybreak import Recipe, load, train
from daybreak.checkpoint import list_checkpoints
from daybreak.data.shards import Corpus

SETTINGS = (
    "data.tokenizer=bytes", "data.window=16", "batch.tokens=64", "model.layers=1", "model.heads=2", "model.dim=16",
    "model.context=16", "model.vocab_size=257", "evaluation.tokens=100", "execution.micro_batch=1",
    "execution.threads=1", "checkpoint.every=never", "evaluation.every=never", "budget=1000000steps",
)  # fmt: skip

# In the child: wait inside one stage until the signals have come, as a slow machine would.
CHILD = """
import sys, time
stage = sys.argv.pop(1)

def waiting(function):
    def wait(*args, **kwargs):
        if not waiting.done:
            waiting.done = True
            print("in", stage, file=sys.stderr, flush=True)
            for _ in range(300):
                time.sleep(0.1)
                if stopped(): break
        return function(*args, **kwargs)
    return wait

waiting.done = False
from daybreak.training import execution, loop, signals
from daybreak import saving, warm_up
from daybreak.evaluate import loss

requests = []
made = signals.StopRequest.__init__
def init(self):
    made(self)
    requests.append(self)
signals.StopRequest.__init__ = init
stopped = lambda: requests[-1].requested

if stage == "training":
    loop.unscale_and_clip = waiting(loop.unscale_and_clip)
elif stage == "evaluation":
    loss.Validation._nll = waiting(loss.Validation._nll)
elif stage == "compilation":
    warm_up.compile_blocks = waiting(warm_up.compile_blocks)
elif stage == "saving":
    saving._write_tensors = waiting(saving._write_tensors)
elif stage == "background":
    saving._write_tensors = waiting(saving._write_tensors)

from daybreak.cli import main
main()
"""

STAGES = {
    "training": (),
    "evaluation": ("evaluation.every=1steps",),
    "compilation": ("execution.compile=true",),
    "saving": ("checkpoint.every=1steps",),
    "background": ("checkpoint.every=1steps", "checkpoint.background=true"),
}


def start(stage: str, corpus: Corpus, out: Path, *options: str) -> "subprocess.Popen[str]":
    """A run that waits inside a stage."""
    words = [sys.executable, "-c", CHILD, stage, "train", "gpt2-tiny", *SETTINGS, *STAGES[stage], *options]
    where = ["--data", str(corpus.path), "--out", str(out)]
    return subprocess.Popen([*words, *where], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for(stage: str, process: "subprocess.Popen[str]") -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"in {stage}"):
            return
    raise AssertionError(f"it ended before {stage}")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)],  # one handler
    ids=["SIGTERM", "SIGINT"],
)
def test_a_signal_in_any_stage_saves_once_and_exits_with_3(
    stage: str, number: signal.Signals, corpus: Corpus, tmp_path: Path
) -> None:
    process = start(stage, corpus, tmp_path / "run")
    wait_for(stage, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert "Traceback" not in err
    run = load(tmp_path / "run")
    saved = [path.name for path in list_checkpoints(run.path / "checkpoints")]
    if stage == "background":  # training goes on meanwhile, so the stop may find a later step
        assert saved[-1] == f"step-{run.spent.steps:08d}"
    else:
        assert saved == [f"step-{run.spent.steps:08d}"]
        assert run.spent.steps == (0 if stage == "compilation" else 1)
    assert not list(run.path.rglob("*.partial"))
    if stage == "evaluation":  # what was cut short is owed, and done by the next sitting
        assert run.checkpoint.state["owes_validation"] is True
        assert run.metrics("validation") == []


def test_an_evaluation_that_was_cut_short_is_done_by_the_next_sitting(corpus: Corpus, tmp_path: Path) -> None:
    few = ("budget=3steps", "evaluation.every=1steps")
    process = start("evaluation", corpus, tmp_path / "run", *few)
    wait_for("evaluation", process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 3
    recipe = Recipe.load("gpt2-tiny", *SETTINGS, *STAGES["evaluation"], *few)
    resumed = train(recipe, data=corpus.path, out=tmp_path / "run")
    undisturbed = train(recipe, data=corpus.path, out=tmp_path / "undisturbed")
    losses = [[(r["step"], r["loss"]) for r in run.metrics("validation")] for run in (resumed, undisturbed)]
    assert [step for step, _ in losses[1]] == [1, 2, 3]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("stage", ["training", "saving"])
def test_a_second_signal_ends_at_once(stage: str, corpus: Corpus, tmp_path: Path) -> None:
    process = start(stage, corpus, tmp_path / "run")
    wait_for(stage, process)
    process.send_signal(signal.SIGSTOP)  # so that both are there before either is handled
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    assert process.stderr is not None
    for line in process.stderr:
        if "SIGTERM" in line:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGTERM, 3)  # 3 where all was saved before the second one came


def test_a_second_signal_does_not_wait_for_the_stage(corpus: Corpus, tmp_path: Path) -> None:
    """A stage that nothing but a signal ends: here a save onto a pipe that nobody reads."""
    words = [sys.executable, "-c", CHILD.replace("if stopped(): break", "pass"), "saving", "train", "gpt2-tiny"]
    settings = [*SETTINGS, *STAGES["saving"], "--data", str(corpus.path), "--out", str(tmp_path / "run")]
    process = subprocess.Popen([*words, *settings], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    wait_for("saving", process)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert "SIGINT" in process.stderr.readline()
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert time.monotonic() - began < 5
    assert process.returncode in (-signal.SIGINT, 130)


def test_stop_after_saves_and_exits_with_3(corpus: Corpus, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "daybreak", "train", "gpt2-tiny", *SETTINGS, "--data", str(corpus.path)]
    began = time.monotonic()
    done = subprocess.run(
        [*words, "--out", str(tmp_path / "run"), "--stop-after", "8s"], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 3, done.stderr
    assert time.monotonic() - began > 7
    run = load(tmp_path / "run")
    assert run.spent.steps > 0
    assert run.spent.elapsed_seconds < 9
    assert "the time is over" in done.stderr


@pytest.mark.slow
def test_stop_after_ends_a_compilation_too(corpus: Corpus, tmp_path: Path) -> None:
    process = start("compilation", corpus, tmp_path / "run", "--stop-after", "8s")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert load(tmp_path / "run").spent.steps == 0


@pytest.mark.parametrize("wrong", ["5 steps", "0s", "soon", "-3m"])
def test_a_stop_that_is_no_time_is_refused(wrong: str, corpus: Corpus, tmp_path: Path) -> None:
    from daybreak.errors import UserError

    with pytest.raises(UserError, match="stop_after"):
        train(Recipe.load("gpt2-tiny", *SETTINGS), data=corpus.path, out=tmp_path / "run", stop_after=wrong)
    assert not (tmp_path / "run").exists()


def test_two_runs_in_one_folder_are_one_too_many(corpus: Corpus, tmp_path: Path) -> None:
    first = start("training", corpus, tmp_path / "run")
    wait_for("training", first)
    words = [sys.executable, "-m", "daybreak", "train", "gpt2-tiny", *SETTINGS, "--data", str(corpus.path)]
    second = subprocess.run([*words, "--out", str(tmp_path / "run")], capture_output=True, text=True, timeout=60)
    assert second.returncode == 2
    assert f"in use by process {first.pid}" in second.stderr
    first.kill()
    first.communicate()
    # A dead owner's lock is free.
    third = train(Recipe.load("gpt2-tiny", *SETTINGS, "budget=2steps"), data=corpus.path, out=tmp_path / "run")
    assert third.finished
    assert os.getpid() != first.pid
