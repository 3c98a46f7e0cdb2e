"""Devices by name: what their data sheets say."""

import re
from dataclasses import dataclass
from typing import final

# Dense bf16 / fp16 tensor-core peaks with fp32 accumulation, in TFLOP/s, and memory in GB, from the vendors' data
# sheets. Of names that fit, the first counts.
_DEVICES = {
    "RTX 3060 Ti": (32.4, 8),
    "RTX 3060": (25.5, 12),
    "RTX 3070": (40.6, 8),
    "RTX 3080 Ti": (68.0, 12),
    "RTX 3080": (59.5, 10),
    "RTX 3090 Ti": (80.0, 24),
    "RTX 3090": (71.0, 24),
    "RTX 4060 Ti": (44.1, 8),
    "RTX 4060": (30.2, 8),
    "RTX 4070 Ti": (80.2, 12),
    "RTX 4070": (58.3, 12),
    "RTX 4080 SUPER": (104.5, 16),
    "RTX 4080": (97.5, 16),
    "RTX 4090": (165.2, 24),
    "RTX 5090": (209.5, 32),
    "A100 80GB": (312.0, 80),
    "A100": (312.0, 40),
    "A30": (165.0, 24),
    "A40": (149.7, 48),
    "RTX A6000": (154.8, 48),
    "RTX A5000": (111.1, 24),
    "H100 PCIe": (756.0, 80),
    "H100 NVL": (835.0, 94),
    "H100": (989.0, 80),
    "H200": (989.0, 141),
    "GB200": (2500.0, 186),
    "B200": (2250.0, 180),
    "L40S": (362.0, 48),
    "L4": (121.0, 24),
    "MI250X": (191.5, 64),  # one of its two dies, which is what a device is
    "MI300X": (1307.0, 192),
    "V100": (125.0, 16),  # of fp16, as the next
    "T4": (65.0, 16),
}
_VARIANTS = {"ti", "super", "d", "laptop", "max", "q", "nvl", "mig"}  # another device than the one they follow


@final
@dataclass(frozen=True)
class DataSheet:
    """Of one device: FLOP/s of its dense 16-bit tensor-core peak, and bytes of its memory."""

    name: str
    peak_flops: float
    memory_bytes: float


def data_sheet(name: str) -> DataSheet | None:
    """Of the device that a name stands for, as torch gives it or as people write it; None if it is not in the table."""
    words = set(re.sub(r"rtx(?=\d)|(?<=\d)(?=ti\b|super\b)", r"\g<0> ", name.lower().replace("-", " ")).split())
    for known, (teraflops, gigabytes) in _DEVICES.items():
        wanted = set(known.lower().split())
        if wanted <= words and not (words - wanted) & _VARIANTS:
            return DataSheet(known, teraflops * 1e12, gigabytes * 1e9)
    return None


def known_devices() -> list[str]:
    """Their names, as the table has them."""
    return list(_DEVICES)
