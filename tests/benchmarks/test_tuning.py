"""The search for a peer's settings, with training replaced by a formula."""

from dataclasses import replace
from pathlib import Path

import pytest

import tuning
from contestants import Result
from journal import Journal
from protocol import Search, Setting
from tuning import Peers, steps_within, tuned

GUESS = Setting((4, 4, 128), context=64, batch=12, lr=4e-3)
SEARCH = Search(45.0, {"lr": (2e-3, 4e-3, 8e-3), "batch": (8, 12), "precision": ("fp32", "bf16")})
START, STEP = 5.0, 0.5


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Setting, int]]:
    """What was trained: a step takes half a second, and the best is lr 8e-3 in batches of 8 in bf16."""
    made: list[tuple[str, Setting, int]] = []

    def train(who: str, setting: Setting, steps: int, seed: int, data: Path, checkout: Path | None) -> Result:
        made.append((who, setting, steps))
        loss = abs(setting.lr - 8e-3) + abs(setting.batch - 8) + (setting.precision == "fp32")
        return Result(START + STEP * steps, STEP * steps, steps, loss, loss, "")

    monkeypatch.setattr(tuning, "train_peer", train)
    return made


def test_each_axis_is_searched_from_the_best_so_far(tmp_path: Path, runs: list[tuple[str, Setting, int]]) -> None:
    peers = Peers(Journal(tmp_path / "results.jsonl"), None, calibration_steps=10)
    best = tuned(peers, "transformers", GUESS, SEARCH, tmp_path, purpose="race")
    assert best == replace(GUESS, lr=8e-3, batch=8, precision="bf16")
    trials = [(setting, steps) for _, setting, steps in runs if steps != 10]
    assert len(trials) == 5  # the guess, two rates, a batch, a precision
    assert {steps for _, steps in trials} == {80}  # (45 - 5) / 0.5

    runs.clear()
    assert tuned(peers, "transformers", GUESS, SEARCH, tmp_path, purpose="race") == best
    assert runs == []  # all of it is remembered


def test_a_peer_is_not_asked_for_what_its_code_cannot_do(tmp_path: Path, runs: list[tuple[str, Setting, int]]) -> None:
    peers = Peers(Journal(tmp_path / "results.jsonl"), tmp_path, calibration_steps=10)
    assert tuned(peers, "nanoGPT", GUESS, SEARCH, tmp_path, purpose="race").precision == "fp32"
    assert {setting.precision for _, setting, _ in runs} == {"fp32"}


def test_a_schedule_fits_the_pace_of_runs_of_its_size(tmp_path: Path, runs: list[tuple[str, Setting, int]]) -> None:
    journal = Journal(tmp_path / "results.jsonl")
    peers = Peers(journal, None, calibration_steps=10)
    assert steps_within(peers, "transformers", GUESS, 105.0, tmp_path) == 200
    assert len(runs) == 1
    assert steps_within(peers, "transformers", replace(GUESS, lr=1.0), 55.0, tmp_path) == 100  # no need to calibrate
    assert len(runs) == 1
    steps_within(peers, "transformers", replace(GUESS, batch=24), 55.0, tmp_path)
    assert len(runs) == 2
