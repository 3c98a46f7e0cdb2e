"""metrics.jsonl: what is written is JSON, and what is read is the run."""

import json
import math
import zlib
from pathlib import Path
from typing import Any

import pytest

from daybreak.training.metrics import Metrics, damaged_lines, read_metrics


def record(step: int, loss: float = 1.0) -> dict[str, Any]:
    """A step's record with all that the terminal shows."""
    return {
        "step": step,
        "loss": loss,
        "lr": 1e-3,
        "gradient_norm": 1.0,
        "milliseconds": 5.0,
        "tokens_per_second": 1e4,
        "mfu": None,
        "progress": 0.1,
        "progress_share": 0.01,
    }


def write(path: Path, attempt: int, steps: range, loss: float) -> None:
    with Metrics(path, attempt) as metrics:
        for step in steps:
            metrics.step(record(step, loss))


def reject(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_every_line_is_strict_json_and_no_number_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Metrics(path, 1) as metrics:
        metrics.step(record(1, math.nan))
        metrics.step(record(2, -math.inf))
        metrics.step(record(3, 1 / 3))
        metrics.event("validation", {"step": 3, "loss": 2.0}, "a line")
    lines = [json.loads(line, parse_constant=reject) for line in path.read_text().splitlines()]
    assert [line["loss"] for line in lines] == [None, None, 1 / 3, 2.0]
    assert [line["kind"] for line in lines] == ["train", "train", "train", "validation"]
    assert {line["attempt"] for line in lines} == {1}


def test_kinds_are_read_apart(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, range(1, 4), 1.0)
    with Metrics(path, 1) as metrics:
        metrics.event("sample", {"step": 2, "text": "twice\nlines\u2028"}, "a line")
    assert [each["step"] for each in read_metrics(path, "train")] == [1, 2, 3]
    assert [each["text"] for each in read_metrics(path, "sample")] == ["twice\nlines\u2028"]


def test_of_a_step_done_twice_the_last_attempt_is_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, range(1, 6), 1.0)
    write(path, 2, range(4, 8), 2.0)
    read = [(each["step"], each["attempt"], each["loss"]) for each in read_metrics(path, "train")]
    assert read == [*((step, 1, 1.0) for step in (1, 2, 3)), *((step, 2, 2.0) for step in (4, 5, 6, 7))]


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_last_line_cut_short_is_passed_over(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, range(1, 6), 1.0)
    path.write_bytes(path.read_bytes()[: -1 - cut])
    assert [each["step"] for each in read_metrics(path, "train")] == [1, 2, 3, 4]


def test_what_follows_a_line_cut_short_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, range(1, 6), 1.0)
    path.write_bytes(path.read_bytes()[:-20])
    write(path, 2, range(5, 8), 2.0)
    read = [(each["step"], each["attempt"]) for each in read_metrics(path, "train")]
    assert read == [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (6, 2), (7, 2)]


def test_every_line_ends_with_the_checksum_of_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, range(1, 4), 1.0)
    for line in path.read_text().splitlines():
        written = json.loads(line)
        checksum = written.pop("crc32")
        assert checksum == f"{zlib.crc32(json.dumps(written).encode()):08x}"
    assert damaged_lines(path) == []
    assert all("crc32" not in each for each in read_metrics(path, "train"))


def test_no_flipped_bit_of_a_line_goes_unseen(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, range(1, 4), 1.0)
    whole = path.read_bytes()
    first, second, _ = (len(line) + 1 for line in whole.splitlines())
    for place in range(first, first + second - 1):  # the second line, without its end
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            read = read_metrics(path, "train")
            assert [each["step"] for each in read] == [1, 3]
            assert set(damaged_lines(path)) <= {2, 3}
            assert 2 in damaged_lines(path)


def test_damaged_lines_are_numbered_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, range(1, 7), 1.0)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"loss": 1.0', b'"loss": 0.5')
    lines[3] = json.dumps({"kind": "train", "step": 4, "attempt": 1, "loss": 0.5}).encode() + b"\n"  # no checksum
    lines[5] = lines[5][:-30]
    path.write_bytes(b"".join(lines))
    assert damaged_lines(path) == [2, 4, 6]
    assert [each["step"] for each in read_metrics(path, "train")] == [1, 3, 5]
    assert {each["loss"] for each in read_metrics(path, "train")} == {1.0}


def test_ranks_but_the_first_write_and_show_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Metrics(None, 1) as metrics:
        metrics.event("micro_batch", {"step": 0, "micro_batch": 1}, "")
    assert capsys.readouterr() == ("", "")


def test_a_file_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl", "train") == []
    assert damaged_lines(tmp_path / "metrics.jsonl") == []


def test_a_path_that_cannot_be_written_is_said_once_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "missing" / "metrics.jsonl"
    write(path, 1, range(1, 10), 1.0)
    errors = capsys.readouterr().err
    assert errors.count("cannot be written") == 1
    assert str(path) in errors
    assert not path.exists()
