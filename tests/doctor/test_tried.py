"""What is tried in a process of its own; here it really is, but for what takes long or is not on every machine."""

from pathlib import Path

import pytest
import torch
from pretended_gpus import pretend_two_gpus

from daybreak.doctor import tried
from daybreak.doctor.attempt import Attempt

CPU = torch.device("cpu")


@pytest.mark.slow
def test_compilation_works() -> None:
    assert tried.compilation(CPU).state == "good"


@pytest.mark.slow
def test_a_compiler_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    finding = tried.compilation(CPU)
    assert finding.state == "lacking"
    assert "No working C++ compiler" in finding.found
    assert "install g++" in finding.costs


def test_what_compilation_for_a_gpu_lacks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    log = "fatal error: Python.h: No such file"
    monkeypatch.setattr(tried, "attempt", lambda *words: Attempt("so it is", 1.0, log))
    finding = tried.compilation(torch.device("cuda"))
    assert "so it is" in finding.found
    assert "ALiBi do not train; install python3-dev" in finding.costs


def test_two_ranks_meet() -> None:
    assert "Two processes met" in tried.ranks().found


def test_ranks_that_cannot_meet_are_a_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "none99")
    finding = tried.ranks()
    assert finding.state == "lacking"
    assert "none99" in finding.found


@pytest.mark.parametrize(("nccl", "state"), [(True, "good"), (False, "lacking")])
def test_several_gpus_need_nccl(nccl: bool, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tried, "attempt", lambda *words: Attempt(None, 1.0, ""))
    pretend_two_gpus(monkeypatch)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: nccl)
    assert tried.ranks().state == state


def test_a_vocabulary_in_the_cache_is_good(test_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(test_data / "gpt2_bpe/tiktoken_cache"))
    assert tried.tokenizer().state == "good"


def test_a_vocabulary_that_is_not_in_the_cache_is_a_lack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    finding = tried.tokenizer()
    assert finding.state == "lacking"
    assert "tiktoken's cache lacks vocab.bpe" in finding.found
    assert list(tmp_path.iterdir()) == []
