"""Cores and memory, and how much of them this process may use."""

import os
import platform
import re
from pathlib import Path

import torch

from daybreak.doctor.finding import Finding, gigabytes
from daybreak.hardware import free_memory

_BYTES_PER_PARAMETER = 16  # weight, gradient and two moments, all fp32
_GPT2_MEMORY = 2 * _BYTES_PER_PARAMETER * 124.4e6  # as much again for what the backward pass needs
_CPU_INFO = Path("/proc/cpuinfo")
_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def cpu() -> Finding:
    """The processor, and whether torch starts as many threads as it may use cores."""
    named = re.search(r"^model name\s*:\s*(.+)$", _text(_CPU_INFO), flags=re.MULTILINE)
    cores, threads = _usable_cores(), torch.get_num_threads()
    found = f"{named[1] if named else platform.machine()}; usable cores: {cores:g}, threads of torch: {threads}."
    if threads > max(1, round(cores)):
        return Finding(found, f"threads wait for one another; train with execution.threads={max(1, int(cores))}")
    if os.getloadavg()[0] > 0.75 * (os.cpu_count() or 1):
        found = f"{found} Busy with other things."
        return Finding(found, "what is measured below is less than it can do; execution.threads=1 may train faster")
    return Finding(found)


def memory(device: torch.device) -> Finding:
    """Memory that is free, of the machine and of its GPUs, and the largest model that trains in it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    places = {"the machine": (free_memory(torch.device("cpu")), total)}
    gpus = range(torch.cuda.device_count() if device.type == "cuda" else 0)
    places |= {f"GPU {index}": torch.cuda.mem_get_info(index) for index in gpus}
    listed = ", ".join(f"{gigabytes(free)} of {gigabytes(total)} on {place}" for place, (free, total) in places.items())
    room = min(free for free, _ in list(places.values())[1 if gpus else 0 :])
    largest = f"{room / _BYTES_PER_PARAMETER / 1e6:,.0f} M parameters, of {_BYTES_PER_PARAMETER} bytes each"
    costs = f"GPT-2 small (124 M parameters) wants about {gigabytes(_GPT2_MEMORY)}; smaller models train"
    return Finding(f"Free: {listed}. Room to train at most {largest}.", costs if room < _GPT2_MEMORY else "")


def _usable_cores() -> float:
    """Cores that this process may run on; fewer where its container has a limit (control groups, version 2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _text(_CPU_LIMIT).strip().partition(" ")
    return min(cores, int(quota) / int(period)) if quota.isdecimal() else cores  # else nothing, or `max`


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""
