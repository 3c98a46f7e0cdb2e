"""A machine with two GPUs, as far as questions go."""

import pytest
import torch


def pretend_two_gpus(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The device of a machine with two H100."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index=None: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index=None: (9, 0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (40_000_000_000 + index, 80_000_000_000))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    return torch.device("cuda")
