"""Cores and memory, and what limits them."""

import os
from pathlib import Path

import pytest
import torch
from pretended_gpus import pretend_two_gpus

from daybreak.doctor import machine

CPU = torch.device("cpu")


@pytest.fixture
def idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight cores with nothing to do; what says how much time of them a container may use."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 7.0, 7.0))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(machine, "_CPU_LIMIT", tmp_path / "cpu.max")
    return tmp_path / "cpu.max"


@pytest.mark.parametrize("limit", [None, "max 100000\n"])
def test_a_thread_for_each_core_is_good(limit: str | None, idle: Path) -> None:
    if limit:
        idle.write_text(limit)
    finding = machine.cpu()
    assert finding.state == "good"
    assert "usable cores: 8, threads of torch: 8" in finding.found


def test_more_threads_than_the_container_may_run_are_a_lack(idle: Path) -> None:
    idle.write_text("250000 100000\n")
    finding = machine.cpu()
    assert "usable cores: 2.5" in finding.found
    assert "execution.threads=2" in finding.costs


@pytest.mark.usefixtures("idle")
def test_a_busy_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (7.2, 0.0, 0.0))
    finding = machine.cpu()
    assert finding.state == "lacking"
    assert "Busy" in finding.found


@pytest.mark.parametrize(
    ("free", "state", "room"), [(16_000_000_000, "good", "1,000 M parameters"), (800_000_000, "lacking", " 50 M")]
)
def test_memory_of_the_machine(free: int, state: str, room: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda device: free)
    finding = machine.memory(CPU)
    assert finding.state == state
    assert room in finding.found


def test_memory_of_gpus_counts_where_they_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda device: 1_000_000_000)
    finding = machine.memory(pretend_two_gpus(monkeypatch))
    assert finding.state == "good"
    assert "40.0 GB of 80.0 GB on GPU 1" in finding.found
    assert "2,500 M parameters" in finding.found
