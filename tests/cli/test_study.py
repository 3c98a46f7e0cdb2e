"""`daybreak study` as a command: how it ends."""

import json
import sys
from pathlib import Path

import pytest

from daybreak.cli import main
from daybreak.data.shards import Corpus
from daybreak.errors import Stopped
from made_study import write_study


def stopped(*_: object, **__: object) -> None:
    raise Stopped


def test_stopped_between_trials_it_says_what_is_missing_and_is_ready_to_go_on(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = write_study(tmp_path / "study.toml"), tmp_path / "out"
    words = ["study", str(file), "--data", str(corpus.path), "--out", str(out), "--json"]
    monkeypatch.setattr(sys, "argv", ["daybreak", *words])
    monkeypatch.setattr("daybreak.study.conduct.measure_paces", stopped)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    said = capsys.readouterr()
    assert json.loads(said.out)["missing"] == 6
    assert "the same command goes on" in said.err
    assert "6 trials are missing" in (out / "results.md").read_text()


def test_stopped_before_there_is_a_study_nothing_is_left(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["study", str(write_study(tmp_path / "study.toml")), "--data", str(corpus.path)]
    monkeypatch.setattr(sys, "argv", ["daybreak", *words, "--out", str(tmp_path / "out")])
    monkeypatch.setattr("daybreak.study.plan.variants", stopped)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert not (tmp_path / "out").exists()
