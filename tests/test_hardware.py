"""Peaks by device name, and which devices and precisions are refused."""

import math
import platform
import subprocess
import sys

import pytest
import torch

from daybreak.errors import UserError
from daybreak.hardware import (
    apply_precision,
    autocast,
    choose_device,
    choose_precision,
    device_name,
    free_memory,
    peak_flops,
    table_peak,
)

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")

# Names as the drivers give them; dense 16-bit peaks with fp32 accumulation in TFLOP/s.
peaks = {
    "NVIDIA GeForce RTX 3060": 25.5,
    "NVIDIA GeForce RTX 3060 Ti": 32.4,
    "NVIDIA GeForce RTX 3070": 40.6,
    "NVIDIA GeForce RTX 3080": 59.5,
    "NVIDIA GeForce RTX 3080 Ti": 68.0,
    "NVIDIA GeForce RTX 3090": 71.0,
    "NVIDIA GeForce RTX 3090 Ti": 80.0,
    "NVIDIA GeForce RTX 4060": 30.2,
    "NVIDIA GeForce RTX 4060 Ti": 44.1,
    "NVIDIA GeForce RTX 4070": 58.3,
    "NVIDIA GeForce RTX 4070 Ti": 80.2,
    "NVIDIA GeForce RTX 4080": 97.5,
    "NVIDIA GeForce RTX 4080 SUPER": 104.5,
    "NVIDIA GeForce RTX 4090": 165.2,
    "NVIDIA GeForce RTX 5090": 209.5,
    "NVIDIA A100-SXM4-80GB": 312.0,
    "NVIDIA A100 80GB PCIe": 312.0,
    "A100-SXM4-40GB": 312.0,
    "NVIDIA A30": 165.0,
    "NVIDIA A40": 149.7,
    "NVIDIA RTX A6000": 154.8,
    "NVIDIA RTX A5000": 111.1,
    "NVIDIA H100 80GB HBM3": 989.0,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100 NVL": 835.0,
    "NVIDIA H200": 989.0,
    "NVIDIA B200": 2250.0,
    "NVIDIA GB200": 2500.0,
    "NVIDIA L4": 121.0,
    "NVIDIA L40S": 362.0,
    "Tesla V100-SXM2-16GB": 125.0,
    "Tesla T4": 65.0,
    "AMD Instinct MI250X": 191.5,
    "AMD Instinct MI300X": 1307.0,
}


@pytest.mark.parametrize("name", list(peaks))
def test_a_device_in_the_table_has_its_dense_peak(name: str) -> None:
    assert table_peak(name) == pytest.approx(peaks[name] * 1e12)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "NVIDIA RTX 6000 Ada Generation",
        "NVIDIA L40",
        "NVIDIA A10",
        "NVIDIA GeForce GTX 1080",
        "Quadro RTX 6000",
        "NVIDIA GeForce RTX 2080 Ti",
        "Something of 2040",
    ],
)
def test_a_device_that_is_not_in_the_table_has_no_peak(name: str) -> None:
    assert table_peak(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce RTX 3070 Ti",
        "NVIDIA GeForce RTX 4070 SUPER",
        "NVIDIA GeForce RTX 4070 Ti SUPER",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 3080 Laptop GPU",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA H200 NVL",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
    ],
)
def test_a_variant_does_not_pass_for_the_device_whose_name_it_extends(name: str) -> None:
    """They have other peaks, which the table lacks; an unknown device has none, never a default."""
    assert table_peak(name) is None


def test_a_cpus_peak_is_measured() -> None:
    for precision in ("fp32", "bf16"):
        peak = peak_flops(CPU, precision)
        assert peak is not None
        assert 1e6 < peak < 1e15
        assert peak_flops(CPU, precision) == peak


def test_where_nothing_is_known_there_is_no_peak() -> None:
    assert peak_flops(MPS, "fp32") is None


def test_auto_prefers_cuda_then_mps_then_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, mps, chosen in ((True, True, CUDA), (True, False, CUDA), (False, True, MPS), (False, False, CPU)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert choose_device("auto") == chosen


def test_a_device_that_is_there_is_taken_as_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for wanted in ("cpu", "cuda", "cuda:0", "cuda:1", "mps"):
        assert choose_device(wanted) == torch.device(wanted)
    with pytest.raises(UserError, match=r"execution\.device = 'cuda:2', but this machine has none"):
        choose_device("cuda:2")


@pytest.mark.parametrize("wanted", ["cuda", "cuda:1", "mps", "xpu"])
def test_a_device_that_is_absent_is_refused(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"execution.device = '{wanted}', but this machine has none"):
        choose_device(wanted)


@pytest.mark.parametrize("wanted", ["", "gpu", "cpu:x"])
def test_what_is_no_device_is_refused(wanted: str) -> None:
    with pytest.raises(UserError, match=r"execution\.device = .* use auto, cpu, cuda or mps"):
        choose_device(wanted)


def test_a_device_that_computes_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"execution\.device = 'meta'"):
        choose_device("meta")


def test_auto_precision_is_the_best_that_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_precision("auto", MPS, 768) == "fp32"
    for capability, chosen in (((7, 0), "fp16"), ((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device, is_=capability: is_)
        assert choose_precision("auto", CUDA, 16) == chosen


@pytest.mark.parametrize(
    ("native", "dim", "chosen"), [(True, 256, "bf16"), (True, 64, "fp32"), (False, 256, "fp32"), (False, 768, "fp32")]
)
def test_auto_precision_on_a_cpu_is_bf16_where_that_is_native_and_pays(
    native: bool, dim: int, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    assert choose_precision("auto", CPU, dim) == chosen


@pytest.mark.parametrize("device", [CPU, CUDA])
@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
def test_fp32_and_bf16_are_taken_everywhere(wanted: str, device: torch.device) -> None:
    assert choose_precision(wanted, device, 768) == wanted


@pytest.mark.parametrize(
    ("wanted", "device", "reason"),
    [
        ("fp16", CPU, "not usable on a CPU"),
        ("tf32", CPU, "mode of CUDA tensor cores"),
        ("tf32", MPS, "mode of CUDA tensor cores"),
        ("int8", CPU, "not known"),
        ("fp8", CUDA, "not known"),
    ],
)
def test_a_precision_that_cannot_be_had_is_refused(wanted: str, device: torch.device, reason: str) -> None:
    with pytest.raises(UserError, match=f"execution.precision = .?{wanted}.* {reason}"):
        choose_precision(wanted, device, 768)


def test_autocast_lowers_products_in_bf16_and_leaves_fp32_alone() -> None:
    matrix = torch.ones(2, 2)
    with autocast(CPU, "bf16"):
        assert (matrix @ matrix).dtype == torch.bfloat16
    for precision in ("fp32", "tf32"):
        with autocast(CPU, precision):
            assert (matrix @ matrix).dtype == torch.float32


def test_fp32_means_fp32_and_the_others_let_products_be_tf32() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        for precision, expected in (("fp32", "highest"), ("tf32", "high"), ("bf16", "high"), ("fp32", "highest")):
            apply_precision(precision)
            assert torch.get_float32_matmul_precision() == expected
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_cpu_has_a_name_and_memory() -> None:
    assert device_name(CPU).startswith("cpu")
    assert 1e6 < free_memory(CPU) < math.inf


_FAULTS_OF_REUSE = """
import resource, sys, torch
from daybreak.hardware import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
torch.ones(2**24)  # 64 MB, freed at once
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library's malloc is left as it is")
def test_memory_that_a_tensor_freed_is_used_again_without_asking_the_kernel() -> None:
    def faults(kept: str) -> int:
        words = [sys.executable, "-c", _FAULTS_OF_REUSE, kept]
        return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)

    assert faults("kept") < faults("not") / 10
