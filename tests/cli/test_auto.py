"""`daybreak train auto` and `daybreak extend` as a person types them."""

import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from daybreak import load
from daybreak.cli import main
from daybreak.data.shards import Corpus
from daybreak.planning import dial
from daybreak.training.budget import Clock, Rates, TimeBudget
from daybreak.training.growth import StepSize
from daybreak.training.metrics import Metrics
from daybreak.training.shortfall import warn_of_few_steps

SMALL = (
    "model.lookup.rows=1024", "model.context=32", "data.window=32", "batch.tokens=256", "evaluation.tokens=256",
    "execution.threads=1",
)  # fmt: skip


def daybreak(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The exit code."""
    monkeypatch.setattr(sys, "argv", ["daybreak", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_it_chooses_trains_goes_on_and_is_extended(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "auto"
    words = ("train", "auto", "--data", corpus.path, "--out", out, "budget=80 steps", *SMALL)
    record_step = Metrics.step

    def stop_at_ten(self: Metrics, record: dict[str, Any]) -> None:
        record_step(self, record)
        if record["step"] == 10:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Metrics, "step", stop_at_ten)
        assert daybreak(patch, *words) == 3
    said = capfd.readouterr().err
    assert "<- chosen" in said
    assert "daybreak-d1 is expected to make the most of 80 steps" in said

    monkeypatch.setattr(dial, "choose_depth", lambda *_: pytest.fail("it was chosen again"))
    assert daybreak(monkeypatch, *words) == 0
    run = load(out)
    assert (run.recipe.name, run.spent.steps, run.recipe.model.layers) == ("daybreak-d1", 80, 1)

    assert daybreak(monkeypatch, "extend", out, "budget=100 steps", "--out", tmp_path / "longer") == 0
    assert load(tmp_path / "longer").spent.steps == 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("budget=80 steps",), "no corpus: give --data"),
        (("--data", "{corpus}"), "say what the run may spend"),
        (("--data", "{corpus}", "budget=10 steps"), "too small for anything useful"),
        (("--data", "{corpus}", "budget=80 steps", "model.layer=3"), "daybreak-d1 is not valid"),
        (("--data", "{corpus}", "budget=80 steps", "--stop-after", "3 steps"), "is no time"),
        (("--data", "{corpus}", "budget=10 tokens"), "are the least that is of use"),
    ],
)
def test_a_mistake_is_one_message(
    words: tuple[str, ...], message: str, corpus: Corpus, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    asked = [str(corpus.path) if word == "{corpus}" else word for word in words]
    assert daybreak(monkeypatch, "train", "auto", *asked, "--out", tmp_path / "run") == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")]
    assert message in line
    assert not (tmp_path / "run").exists()


def test_ranks_are_not_measured(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert daybreak(monkeypatch, "train", "auto", "--data", corpus.path, "--out", tmp_path / "run", "budget=1h") == 2
    assert "auto measures one process alone" in capfd.readouterr().err


def test_few_steps_are_said_before_they_are_made(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("train", "daybreak-d1", "--data", corpus.path, "--out", tmp_path / "run", "data.tokenizer=bytes")
    assert daybreak(monkeypatch, *words, "model.vocab_size=320", "budget=10 steps", *SMALL) == 0
    said = capfd.readouterr().err
    assert "about 10 steps fit into 10 steps of 256 tokens, too few to learn from; 50 steps would be enough" in said
    assert said.index("too few to learn from") < said.index("step      1")


@pytest.mark.parametrize(("step_seconds", "least"), [(1.0, "1m"), (0.19, None), (3.0, "160s")])
def test_a_time_for_few_steps_names_one_for_more(
    step_seconds: float, least: str | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Twenty seconds, of which ten are over."""
    monkeypatch.setattr("daybreak.training.budget.time", SimpleNamespace(monotonic=lambda: 10.0))
    rates = Rates(StepSize(1, 16, 16, 1.0), 1000, 1)
    warn_of_few_steps(TimeBudget(20.0, "process", Clock(0.0), rates, step_seconds=step_seconds), step_seconds)
    said = capfd.readouterr().err
    if least is None:
        assert said == ""
    else:
        assert f"{least} would be enough here" in said
