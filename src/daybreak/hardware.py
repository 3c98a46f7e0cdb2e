"""The device, the precision it can do, its peak rate, and the memory that is free."""

import ctypes
import os
import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Literal

import torch

from daybreak.data_sheets import data_sheet
from daybreak.errors import UserError

PrecisionName = Literal["fp32", "tf32", "bf16", "fp16"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # options of mallopt(3)

_LEAST_DIM_FOR_BF16_ON_CPU = 128
_PRODUCTS_TO_MEASURE_A_PEAK = 8  # some 0.1 s, which a run spends of its budget


def choose_device(wanted: str) -> torch.device:
    """`auto` is CUDA, else Apple's MPS, else the CPU.

    Raises:
        UserError: the device asked for is not there.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise UserError(f"execution.device = {wanted!r} is no device; use auto, cpu, cuda or mps") from None
    if not is_here(device):
        raise UserError(
            f"execution.device = {wanted!r}, but this machine has none that torch can use; daybreak doctor tells more"
        )
    return device


def is_here(device: torch.device) -> bool:
    """Whether this machine has the device."""
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu" or (device.type == "mps" and torch.backends.mps.is_available())


def choose_precision(wanted: str, device: torch.device, dim: int) -> PrecisionName:
    """`auto` is bf16 where the device multiplies it natively, else fp16 on CUDA and fp32 elsewhere.

    On a CPU, models narrower than 128 stay in fp32: their casts cost more than their products save.

    Raises:
        UserError: the device cannot train in this precision.
    """
    if wanted == "auto":
        if device.type == "cuda":
            return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
        native = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
        return "bf16" if native and dim >= _LEAST_DIM_FOR_BF16_ON_CPU else "fp32"
    if wanted == "fp16" and device.type == "cpu":
        raise UserError("execution.precision = fp16 is not usable on a CPU (1 GFLOP/s); use bf16 or fp32")
    if wanted == "tf32" and device.type != "cuda":
        raise UserError("execution.precision = tf32 is a mode of CUDA tensor cores; use fp32 here")
    if wanted not in ("fp32", "tf32", "bf16", "fp16"):
        raise UserError(f"execution.precision = {wanted!r} is not known; use auto, fp32, tf32, bf16 or fp16")
    return wanted  # type: ignore[return-value]


def apply_precision(precision: PrecisionName) -> None:
    """Let matrix products of fp32 tensors use TF32, or not."""
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")


def keep_freed_memory() -> None:
    """Have glibc's malloc keep what tensors free in place of giving it back to the kernel; nothing elsewhere.

    By default each large tensor is mapped when it is made and unmapped when it is freed, and the kernel clears its
    pages again at every step: a quarter of a step with a vocabulary of 50,304 words (`docs/log.md`, 2026-11-22).
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):  # glibc's; others may have a mallopt of other options
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, -1)  # never: it is read as unsigned


def autocast(device: torch.device, precision: PrecisionName) -> AbstractContextManager[object]:
    """The context in which forward passes run."""
    if precision in ("bf16", "fp16"):
        return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)
    return nullcontext()


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.get_num_threads()} threads)"


def peak_flops(device: torch.device, precision: PrecisionName) -> float | None:
    """FLOP/s that model FLOPs utilisation is a share of; None where it is not known.

    On CUDA the dense 16-bit tensor-core peak, whatever the run's precision, so that figures of the
    same device compare. On a CPU what a large matrix product reaches in the run's precision.
    """
    if device.type == "cuda":
        return table_peak(device_name(device))
    if device.type == "cpu":
        return _measured_matmul_flops(torch.bfloat16 if precision == "bf16" else torch.float32, torch.get_num_threads())
    return None


def table_peak(name: str) -> float | None:
    """Dense 16-bit peak of a device by its name, FLOP/s; None if it is not known."""
    data = data_sheet(name)
    return None if data is None else data.peak_flops


@cache
def _measured_matmul_flops(dtype: torch.dtype, threads: int) -> float:
    size = 1024
    left, right = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    best = float("inf")
    for _ in range(_PRODUCTS_TO_MEASURE_A_PEAK):
        started = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def free_memory(device: torch.device) -> int:
    """Bytes that can be allocated now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)  # what was freed and kept counts as free
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux: half of what there is
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and limit.read_text().strip().isdecimal():
        available = min(available, max(0, int(limit.read_text()) - int(used.read_text())))
    return available


def is_busy() -> bool:
    """Whether more than half of this machine's cores were busy in the mean of the last minute."""
    return os.getloadavg()[0] > 0.5 * (os.cpu_count() or 1)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was short, of the device or of the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(said in str(error) for said in ("can't allocate memory", "Storage size calculation overflowed"))
