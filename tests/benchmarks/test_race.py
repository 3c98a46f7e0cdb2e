"""Who runs next, what counts as reached, and what a stopped benchmark remembers."""

from pathlib import Path

import pytest

import journal as journals
from journal import Journal
from protocol import TOY
from race import Contestant, next_attempt
from report import report, time_to_target

CONTESTANT = Contestant("one", ("10s", "20s", "40s"), lambda budget, seed: None)


def note(journal: Journal, budget: str, *losses: float, contestant: str = "one") -> None:
    for seed, loss in enumerate(losses, start=1):
        seconds = float(budget.removesuffix("s"))
        key = {"contestant": contestant, "budget": budget, "seed": seed}
        journal.add("race", **key, loss=loss, seconds=seconds + 1, train_seconds=seconds, steps=10 * seconds)


def test_a_budget_is_given_up_once_its_median_must_miss(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "results.jsonl")
    assert next_attempt(CONTESTANT, journal, 2.0, seeds=5) == ("10s", 1)
    note(journal, "10s", 2.1, 2.2)
    assert next_attempt(CONTESTANT, journal, 2.0, seeds=5) == ("10s", 3)
    note(journal, "10s", 2.1, 2.2, 2.3)
    assert next_attempt(CONTESTANT, journal, 2.0, seeds=5) == ("20s", 1)


def test_a_contestant_is_done_once_a_median_over_all_seeds_reached_the_target(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "results.jsonl")
    note(journal, "10s", 2.1, 2.2, float("nan"))
    note(journal, "20s", 1.9, 2.0, 2.1, 2.0)
    assert next_attempt(CONTESTANT, journal, 2.0, seeds=5) == ("20s", 5)
    note(journal, "20s", 1.9, 2.0, 2.1, 2.0, 2.1)
    assert next_attempt(CONTESTANT, journal, 2.0, seeds=5) is None


def test_time_to_target_is_that_of_the_shortest_budget_whose_median_reached_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "results.jsonl")
    target = TOY.race.target
    assert time_to_target(TOY, journal, "one") is None
    note(journal, "40s", target - 1)
    note(journal, "20s", target)
    note(journal, "10s", target + 1)
    assert time_to_target(TOY, journal, "one") == ("20s", 21.0, 20.0)
    note(journal, "40s", target - 1, contestant="nanoGPT")
    note(journal, "20s", target - 1, contestant="daybreak-char")
    assert "| 2.0× (41.0 s ÷ 21.0 s) |" in report(TOY, journal)


def test_a_contestant_is_forgotten_in_one_row_or_in_all(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "results.jsonl")
    for row in ("race", "waiting"):
        journal.add(row, contestant="one")
        journal.add(row, contestant="other")
    journal.forget("one", "race")
    assert (journal.records("race", contestant="one"), len(journal.records("waiting", contestant="one"))) == ([], 1)
    journal.forget("one")
    assert journal.records("waiting", contestant="one") == []
    assert len(journal.records("race")) == len(journal.records("waiting")) == 1


def test_what_another_machine_measured_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "results.jsonl")
    note(journal, "10s", 2.1)
    monkeypatch.setattr(journals, "machine", lambda: {"machine": "another", "torch": "3"})
    assert journal.records("race") == []


def test_a_line_cut_short_costs_one_measurement(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "results.jsonl")
    note(journal, "10s", 2.1, 2.2)
    journal.path.write_text(journal.path.read_text()[:-20])
    assert [record["loss"] for record in journal.records("race")] == [2.1]
    note(journal, "20s", 2.3)
    assert [record["loss"] for record in journal.records("race")] == [2.1, 2.3]


def test_a_contestant_is_measured_anew_when_asked(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "results.jsonl")
    note(journal, "10s", 2.1)
    note(journal, "10s", 2.2, contestant="two")
    journal.forget("one")
    assert [record["contestant"] for record in journal.records("race")] == ["two"]
    note(journal, "10s", 1.9)
    assert [record["loss"] for record in journal.records("race", contestant="one")] == [1.9]
