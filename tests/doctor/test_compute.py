"""The device that trains."""

from pathlib import Path

import pytest
import torch
from pretended_gpus import pretend_two_gpus

from daybreak.doctor import compute
from daybreak.hardware import choose_device

CPU = torch.device("cpu")


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What NVIDIA's driver tells of itself, where there is one; the CPU reaches 200 GFLOP/s."""
    monkeypatch.setattr(compute, "_DRIVER", tmp_path / "version")
    monkeypatch.setattr(compute, "peak_flops", lambda device, precision: 2e11)
    return tmp_path / "version"


@pytest.mark.usefixtures("driver")
def test_no_gpu_is_told_with_what_it_costs() -> None:
    finding = compute.gpus(CPU)
    assert finding.found.startswith("No GPU")
    assert "1,440 days" in finding.costs  # 6 x 124.4 M x 10 B FLOPs at 0.3 x 200 GFLOP/s


def test_a_gpu_that_torch_cannot_use_is_told_with_the_reason(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def zeros(*_: object, device: str) -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old.\nPlease update it.")

    driver.write_text("470.86.10\n")
    monkeypatch.setattr(torch, "zeros", zeros)
    finding = compute.gpus(CPU)
    assert "NVIDIA driver 470.86.10 is here" in finding.found
    assert "your system is too old. The CPU trains." in finding.found
    assert "stands idle" in finding.costs


def test_gpus_are_named(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.write_text("580.9.1\n")
    finding = compute.gpus(pretend_two_gpus(monkeypatch))
    assert finding.state == "good"
    assert finding.found == "2 x NVIDIA H100 80GB HBM3; NVIDIA driver 580.9.1, torch is built for CUDA 13.0."


def test_a_tiny_model_learns() -> None:
    assert compute.training(choose_device("auto")).state == "good"


def test_a_model_that_does_not_learn_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim, "AdamW", lambda parameters, lr, fused: torch.optim.SGD(parameters, lr=0.0))
    with pytest.raises(ArithmeticError, match="went from"):
        compute.training(CPU)


@pytest.mark.parametrize(("native", "state", "precision"), [(True, "good", "bf16"), (False, "lacking", "fp32")])
def test_bf16_on_a_cpu(native: bool, state: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(compute, "peak_flops", lambda device, precision: 2e11)
    finding = compute.bf16(CPU)
    assert finding.state == state
    assert f"runs use {precision}: 0.2 TFLOP/s" in finding.found


def test_bf16_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    device = pretend_two_gpus(monkeypatch)
    assert compute.bf16(device).found == "Multiplied natively; runs use bf16: 989 TFLOP/s at most."
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index=None: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index=None: "Quadro")
    finding = compute.bf16(device)
    assert finding.state == "lacking"
    assert "runs use fp16: peak not known" in finding.found


def test_kernels_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "flash" in compute.kernels(CPU).found
    monkeypatch.setattr(compute, "_fused_kernels", lambda device: [])
    finding = compute.kernels(CPU)
    assert "no kernel" in finding.found
    assert "square" in finding.costs
