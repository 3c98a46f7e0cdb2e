"""What a report reads is what `read_metrics` gives, in columns."""

import math
from pathlib import Path

import numpy as np
from made_runs import train_record, write

from daybreak.report.journal import read_journal
from daybreak.training.metrics import read_metrics


def test_columns_are_the_records_that_read_metrics_keeps(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(tmp_path, 1, [("train", train_record(step, 30, loss=float(step))) for step in range(1, 21)])
    write(tmp_path, 1, [("validation", {"step": step, "loss": 1.0}) for step in (10, 20)])
    with path.open("ab") as file:
        file.write(b'{"kind": "train", "step": 21, "lo')  # a crash
    write(tmp_path, 2, [("train", train_record(step, 30, loss=100.0 + step)) for step in range(13, 26)])
    write(tmp_path, 2, [("validation", {"step": 20, "loss": 2.0}), ("sample", {"step": 20, "text": "a"})])

    journal = read_journal(path)
    kept = read_metrics(path, "train")
    assert len(journal) == len(kept) == 25
    for name in ("step", "loss", "tokens", "elapsed_seconds", "mfu"):
        np.testing.assert_array_equal(journal.columns[name], [record[name] for record in kept])
    for kind in ("validation", "sample"):
        assert journal.of_kind(kind) == read_metrics(path, kind)
    assert (journal.lost, journal.cut_short) == (8, 1)
    assert journal.sittings == [(1, 12), (13, 25)]


def test_a_line_that_is_being_written_is_no_damage(tmp_path: Path) -> None:
    write(tmp_path, 1, [("train", train_record(1, 2, loss=1.0))])
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"kind": "train"')
    journal = read_journal(tmp_path / "metrics.jsonl")
    assert (len(journal), journal.cut_short) == (1, 0)


def test_steps_that_were_skipped_are_found_by_the_count_of_the_guard(tmp_path: Path) -> None:
    skipped = {4: 1, 5: 2, 9: 3}
    counts = [max((count for at, count in skipped.items() if at <= step), default=0) for step in range(1, 13)]
    records = [
        train_record(step, 12, loss=math.nan if step in skipped else 2.0, skipped=counts[step - 1])
        for step in range(1, 13)
    ]
    write(tmp_path, 1, [("train", record) for record in records])
    journal = read_journal(tmp_path / "metrics.jsonl")
    assert journal.skipped_steps == [4, 5, 9]
    assert np.isnan(journal.columns["loss"][[3, 4, 8]]).all()


def test_marks_say_what_happened_where(tmp_path: Path) -> None:
    write(tmp_path, 1, [("train", train_record(step, 9, loss=2.0)) for step in range(1, 4)])
    write(
        tmp_path,
        2,
        [
            ("changes", {"step": 3, "settings": ["optimizer.lr: 0.1 here, 0.2 there"]}),
            ("train", train_record(4, 9, loss=2.0)),
            ("rollback", {"step": 5, "loss": 9.5, "back_to": None}),
            ("micro_batch", {"step": 5, "micro_batch": 2}),
        ],
    )
    marks = read_journal(tmp_path / "metrics.jsonl").marks
    assert [(mark.step, mark.kind) for mark in marks] == [
        (3, "changes"), (4, "sitting"), (5, "rollback"), (5, "micro_batch"),
    ]  # fmt: skip
    assert "optimizer.lr: 0.1, before 0.2" in marks[0].text
    assert "9.5000" in marks[2].text


def test_a_run_without_steps_has_an_empty_journal(tmp_path: Path) -> None:
    journal = read_journal(tmp_path / "metrics.jsonl")
    assert (len(journal), journal.sittings, journal.marks, journal.skipped_steps) == (0, [], [], [])
