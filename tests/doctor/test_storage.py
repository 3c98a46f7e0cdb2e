"""The disk and the open files."""

import errno
import os
import resource
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from daybreak.doctor import storage


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_PROBED_BYTES", 100_000)


def test_disk_is_measured_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    finding = storage.disk(tmp_path / "runs" / "new")
    assert finding.state != "broken"
    assert finding.found.startswith(f"{tmp_path}: ")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_disk_that_is_slow_or_full_is_a_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2_000_000_000))
    monkeypatch.setattr(storage, "_SLOW_CHECKPOINT_SECONDS", 0)
    finding = storage.disk(tmp_path)
    assert finding.state == "lacking"
    assert "2.0 GB free" in finding.found
    assert "wants 4.5 GB" in finding.costs
    assert "saving is slow" in finding.costs


def test_a_folder_that_is_a_file_breaks_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert storage.disk(tmp_path / "file").state == "broken"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("where", "number"), [("os.fsync", errno.ENOSPC), ("os.mkdir", errno.EROFS), ("fcntl.flock", errno.ENOLCK)]
)
def test_a_disk_that_refuses_breaks_all(
    where: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(where, refuse)
        finding = storage.disk(tmp_path)
    assert finding.state == "broken"
    assert "could not be written and locked there" in finding.found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("limit", "state"), [(1024, "good"), (resource.RLIM_INFINITY, "good"), (128, "lacking")])
def test_open_files(limit: int, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, resource.RLIM_INFINITY))
    assert storage.open_files().state == state
