"""Tracking: whatever a tracker does, training goes on with the same bits, and says once what went wrong."""

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daybreak import train
from daybreak.data.shards import Corpus
from daybreak.errors import UserError
from daybreak.recipe import Recipe
from daybreak.run import Run
from daybreak.training import tracking
from daybreak.training.metrics import Metrics
from daybreak.training.tracking import Tracking, TrackingConfig, start_tracking

SETTINGS = (
    "budget=8 steps", "data.tokenizer=bytes", "data.window=16", "batch.tokens=64", "model.layers=1", "model.heads=2",
    "model.dim=16", "model.context=16", "model.vocab_size=257", "evaluation={tokens=64, every='4 steps'}",
    "checkpoint={every='100%', keep=10}", "execution.threads=1",
)  # fmt: skip

LIKE_WANDB = """
class Run:
    def log(self, values, step):
        {log}
    def finish(self):
        {finish}

def init(**settings):
    {init}
    return Run()

def Settings(**settings):
    return None
"""
HANGS = "import time; time.sleep(1000)"


@pytest.fixture(autouse=True)
def nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_DISABLED", "TRACKIO_DIR", "NETRC"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def untracked(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(
        Recipe.load("gpt2-tiny", *SETTINGS), data=corpus.path, out=tmp_path_factory.mktemp("untracked") / "run"
    )


def tracked(corpus: Corpus, out: Path, kind: str) -> Run:
    recipe = Recipe.load("gpt2-tiny", *SETTINGS, f"tracking={{kinds='{kind}', every='1 steps'}}")
    return train(recipe, data=corpus.path, out=out)


def assert_same_bits(run: Run, other: Run) -> None:
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert (run.checkpoint.path / file).read_bytes() == (other.checkpoint.path / file).read_bytes()
    assert [record["loss"] for record in run.metrics()] == [record["loss"] for record in other.metrics()]


def put_in_place_of_wandb(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """For the tracker's process, which alone imports it."""
    (folder / "packages").mkdir()
    (folder / "packages" / "wandb.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder / "packages"), prepend=":")


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("raise ImportError('no part of it')", "ImportError: no part of it"),
        (LIKE_WANDB.format(init="raise ValueError('no')", log="pass", finish="pass"), "ValueError: no"),
        (LIKE_WANDB.format(init="pass", log="raise OSError('no network')", finish="pass"), "OSError: no network"),
        (LIKE_WANDB.format(init="pass", log="import os; os._exit(7)", finish="pass"), "it ended"),
        (LIKE_WANDB.format(init="pass", log="pass", finish="raise TypeError('at the end')"), "TypeError: at the end"),
        (LIKE_WANDB.format(init=HANGS, log="pass", finish="pass"), "it did not end within 1 s"),
        (LIKE_WANDB.format(init="pass", log=HANGS, finish="pass"), "it did not end within 1 s"),
        (LIKE_WANDB.format(init="pass", log="pass", finish=HANGS), "it did not end within 1 s"),
    ],
    ids=[
        "import raises", "init raises", "log raises", "log ends the process", "finish raises", "init hangs",
        "log hangs", "finish hangs",
    ],
)  # fmt: skip
def test_a_tracker_that_fails_is_said_once_and_changes_no_bit(
    module: str,
    said: str,
    untracked: Run,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put_in_place_of_wandb(tmp_path, monkeypatch, module)
    monkeypatch.setattr(tracking, "_PATIENCE", 1.0)
    run = tracked(corpus, tmp_path / "run", "wandb")
    assert run.finished
    assert_same_bits(run, untracked)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: wandb")]
    assert warnings == [f"warning: wandb: {said}; the run goes on without it"]


@pytest.mark.parametrize("kind", ["tensorboard", "trackio"])
def test_a_full_disk_is_said_once_and_changes_no_bit(
    kind: str,
    untracked: Run,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No file of the tracker's process may grow beyond four kilobytes."""
    popen = subprocess.Popen

    def started(*words: Any, **settings: Any) -> Any:
        process = popen(*words, **settings)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, 4096))
        return process

    monkeypatch.setattr(subprocess, "Popen", started)
    run = tracked(corpus, tmp_path / "run", kind)
    assert run.finished
    assert_same_bits(run, untracked)
    errors = capsys.readouterr().err
    assert errors.count(f"warning: {kind}: ") == errors.count("the run goes on without it") == 1


def test_a_process_that_takes_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_in_place_of_wandb(tmp_path, monkeypatch, LIKE_WANDB.format(init=HANGS, log="pass", finish="pass"))
    monkeypatch.setattr(tracking, "_MOST_WAITING", 100_000)
    config = TrackingConfig(kinds=("wandb",))
    with Metrics(tmp_path / "metrics.jsonl", 1, start_tracking(config, tmp_path, {}, behind=0, tracked=0)) as metrics:
        for step in range(300):
            metrics.event("sample", {"step": step, "text": "a" * 1000}, "")
    assert capsys.readouterr().err.count("wandb: it takes nothing any more") == 1
    assert (tmp_path / "metrics.jsonl").read_bytes().count(b"\n") == 300


def test_a_package_that_is_not_there_is_said_before_anything_begins(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wandb").mkdir()  # as runs leave it; no package
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(UserError, match=r"tracking.kinds = wandb needs a package: pip install 'daybreak\[track\]'"):
        tracking.require_installed(TrackingConfig(kinds=("wandb",)))


class Sink:
    """Keeps the lines that a tracker is given."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def send(self, line: bytes) -> None:
        self.lines.append(line)


@pytest.mark.parametrize(
    ("every", "expected"), [("1s", [1, 3, 5, 7]), ("3 steps", [3, 6]), ("never", []), ("256 tokens", [4, 8])]
)
def test_training_records_are_sent_at_an_interval_and_others_always(every: str, expected: list[int]) -> None:
    config, sink = TrackingConfig(kinds=("wandb",), every=every), Sink()  # type: ignore[arg-type]
    sending: Any = Tracking(config.every, [sink])  # type: ignore[list-item]
    for step in range(1, 9):
        record = {"kind": "train", "step": step, "tokens": 64 * step, "elapsed_seconds": 0.5 * step + 0.6}
        sending.send(record | {"progress": 0.1 * step, "progress_share": 0.1}, b"%d" % step)
        sending.send({"kind": "sample", "step": step}, b"sample")
    assert [int(line) for line in sink.lines if line != b"sample"] == expected
    assert sink.lines.count(b"sample") == 8


@pytest.mark.parametrize(
    ("environment", "netrc", "mode"),
    [
        ({}, "", "offline"),
        ({"WANDB_API_KEY": "key"}, "", "online"),
        ({"WANDB_API_KEY": "key", "WANDB_MODE": "offline"}, "", "offline"),
        ({"WANDB_MODE": "online"}, "", "online"),
        ({"WANDB_MODE": "disabled", "WANDB_API_KEY": "key"}, "", "disabled"),
        ({"WANDB_DISABLED": "true"}, "", "disabled"),
        ({}, "machine api.wandb.ai\n  login user\n  password key\n", "online"),
        ({"WANDB_BASE_URL": "https://other.example"}, "machine api.wandb.ai login user password key\n", "offline"),
        ({}, "machine", "offline"),
    ],
)
def test_wandb_is_offline_unless_somebody_is_logged_in_or_asks(
    environment: dict[str, str], netrc: str, mode: str, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".netrc").write_text(netrc)
    assert tracking._wandb_mode(environment) == mode


def test_no_tracker_is_given_a_secret_but_wandb_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "DB_PASSWORD"):
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("TRACKIO_SPACE_ID", "someone/somewhere")
    for kind, known in (("tensorboard", set()), ("trackio", set()), ("wandb", {"WANDB_API_KEY"})):
        environment = tracking._environment(kind, tmp_path)  # type: ignore[arg-type]
        assert {name for name, value in environment.items() if value == "canary"} == known
    assert "TRACKIO_SPACE_ID" not in tracking._environment("trackio", tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert "canary" not in tracking._environment("wandb", tmp_path).values()


def test_trackers_are_a_list_or_words_and_no_part_of_a_run_s_fingerprint() -> None:
    plain, listed, worded = (
        Recipe.load("gpt2-tiny", *settings)
        for settings in ((), ('tracking.kinds=["tensorboard", "wandb"]',), ("tracking.kinds=tensorboard, wandb",))
    )
    assert listed == worded
    assert listed.tracking.kinds == ("tensorboard", "wandb")
    assert plain.fingerprint == listed.fingerprint
    assert plain.tracking.kinds == ()
    with pytest.raises(UserError, match=r"tracking\.kinds"):
        Recipe.load("gpt2-tiny", "tracking.kinds=tensorbored")
