"""The device that trains: what it is, whether a model learns on it, in which precision and with which kernels."""

from contextlib import suppress
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from daybreak.doctor.finding import Finding, in_a_line
from daybreak.hardware import PrecisionName, choose_precision, peak_flops
from daybreak.model.gpt import ModelConfig, build

_GPT2_FLOPS = 6 * 124.4e6 * 10e9  # parameters, tokens
_SHARE_OF_PEAK = 0.3
_DRIVER = Path("/sys/module/nvidia/version")


def gpus(device: torch.device) -> Finding:
    """The GPUs that torch can use, or why it uses none."""
    if device.type == "mps":
        return Finding("Apple's GPU, by way of MPS.")
    driver = _DRIVER.read_text().strip() if _DRIVER.is_file() else None
    if device.type == "cuda":
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        counted = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
        return Finding(f"{counted}; NVIDIA driver {driver or 'not known'}, torch is built for {built}.")
    costs = "models of a few million parameters train in minutes"
    peak = peak_flops(device, _own_precision(device))
    if peak is not None:
        days = _GPT2_FLOPS / (_SHARE_OF_PEAK * peak) / 86400
        costs += f", but GPT-2 small on 10 B tokens would take about {days:,.0f} days"
    if driver is None:
        return Finding("No GPU; the CPU trains.", costs)
    why = "it does not say why"
    try:
        torch.zeros(1, device="cuda")
    except (RuntimeError, AssertionError) as error:
        why = in_a_line(error)
    return Finding(
        f"NVIDIA driver {driver} is here, but torch {torch.__version__} finds no GPU: {why}. The CPU trains.",
        f"the GPU stands idle; install a torch that fits the driver. On the CPU, {costs}",
    )


def training(device: torch.device) -> Finding:
    """Twenty steps of a tiny model in fp32; its loss must fall.

    Raises:
        ArithmeticError: it did not.
    """
    model = build(ModelConfig(layers=2, heads=2, dim=32, context=32, vocab_size=64), seed=1, device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    tokens_BT = torch.arange(4 * 33, device=device).view(4, 33) % 64
    losses = []
    for _ in range(20):
        loss = model(tokens_BT[:, :-1], tokens_BT[:, 1:]) / (4 * 32)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    found = f"20 steps of a tiny model on {device.type}: its loss went from {losses[0]:.2f} to {losses[-1]:.2f}."
    if not losses[-1] < losses[0]:  # NaN is not less either
        raise ArithmeticError(found)
    return Finding(found)


def bf16(device: torch.device) -> Finding:
    """Whether bf16 is multiplied natively, what runs use, and how fast that is."""
    precision = _own_precision(device)
    peak = peak_flops(device, precision)
    rate = "peak not known, so runs show no MFU" if peak is None else f"{peak / 1e12:,.3g} TFLOP/s at most"
    costs = {
        "bf16": "",
        "fp16": "its range is narrow: the loss is scaled, and a step may be skipped",
        "fp32": "twice the memory traffic of bf16; on a CPU, a step takes about a quarter longer",
    }[precision]
    natively = "Multiplied natively" if precision == "bf16" else "Not multiplied natively"
    return Finding(f"{natively}; runs use {precision}: {rate}.", costs)


def kernels(device: torch.device) -> Finding:
    """Which fused kernels of attention run here, forward and backward."""
    fused = _fused_kernels(device)
    found, costs = f"Attention runs fused in {_own_precision(device)}: {', '.join(fused) or 'no kernel'}.", []
    if not fused:
        costs.append("attention is slower, and its memory grows with the square of the context")
    if device.type != "cuda":
        found += " FlexAttention trains only on CUDA."
        costs.append("attention windows and ALiBi compute what they then mask; other models lose nothing")
    return Finding(found, "; ".join(costs))


def _fused_kernels(device: torch.device) -> list[str]:
    """Names of the fused attention kernels that run on a device in its own precision."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(_own_precision(device), torch.float32)
    backends = {
        "flash": SDPBackend.FLASH_ATTENTION,
        "cuDNN": SDPBackend.CUDNN_ATTENTION,
        "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    }
    fused = []
    for name, backend in backends.items():
        q_BHTK = torch.randn(1, 2, 128, 64, device=device, dtype=dtype, requires_grad=True)
        with suppress(RuntimeError), sdpa_kernel([backend]):  # the error of a kernel that cannot run here
            total = scaled_dot_product_attention(q_BHTK, q_BHTK, q_BHTK, is_causal=True).sum()
            torch.autograd.grad(total, q_BHTK)
            fused.append(name)
    return fused


def _own_precision(device: torch.device) -> PrecisionName:
    """What runs use here unless told otherwise."""
    return choose_precision("auto", device, dim=128)
