"""All checks together, on this machine and where one of them fails."""

from pathlib import Path

import pytest

from daybreak.doctor import compute, examine, machine, tried
from daybreak.doctor.attempt import Attempt
from daybreak.doctor.finding import Finding


@pytest.fixture(autouse=True)
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started: each would have done well."""
    monkeypatch.setattr(tried, "attempt", lambda *words: Attempt(None, 2.0, ""))


def fail(*_: object) -> Finding:
    raise KeyError("first line\nsecond line")


def test_this_machine_can_train_and_is_left_as_it_was(tmp_path: Path) -> None:
    begun: list[str] = []
    findings = dict(examine.examine(tmp_path, begun.append))
    assert list(findings) == begun
    assert set(begun) >= {"device", "bf16", "kernels", "compile", "memory", "disk", "open files", "ranks", "tokenizer"}
    assert all(finding.state != "broken" and finding.found.endswith(".") for finding in findings.values())
    assert list(tmp_path.iterdir()) == []


def test_findings_come_one_at_a_time(tmp_path: Path) -> None:
    begun: list[str] = []
    next(examine.examine(tmp_path, begun.append))
    assert begun == ["versions"]


def test_a_check_that_fails_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", fail)
    findings = dict(examine.examine(tmp_path))
    assert findings["memory"].state == "lacking"
    assert "first line" in findings["memory"].found
    assert "tokenizer" in findings


def test_training_that_fails_breaks_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "build", fail)
    assert dict(examine.examine(tmp_path))["training"].state == "broken"


def test_without_the_packages_nothing_else_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "versions", lambda: Finding("No torch.", "all", broken=True))
    assert list(dict(examine.examine(tmp_path))) == ["versions"]
