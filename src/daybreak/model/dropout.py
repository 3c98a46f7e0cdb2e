"""Dropout whose mask is a function of (seed, row of the run, site, element), not of a generator.

So no generator state is saved, and neither ranks nor micro-batches change what is dropped.
"""

import torch
from torch import Tensor


def mix(value: Tensor) -> Tensor:
    """Scatter 32-bit integers held in int64; two rounds of xor-shift and multiply.

    The multiplier is Thomas Mueller's 0x45D9F3B; with it products stay below 2^63.
    """
    value = ((value >> 16) ^ value) * 0x45D9F3B & 0xFFFFFFFF
    value = ((value >> 16) ^ value) * 0x45D9F3B & 0xFFFFFFFF
    return (value >> 16) ^ value


def dropout(x: Tensor, rate: float, seeds_B: Tensor | None, site: int) -> Tensor:
    """Zero a share `rate` of `x` (B, ...) and scale the rest by 1 / (1 - rate).

    Args:
        seeds_B: one integer below 2^31 a row; None leaves `x` as it is, as in evaluation.
        site: tells apart the places that share a row's seed.
    """
    if rate == 0.0 or seeds_B is None:
        return x
    kept = random_bits(seeds_B, site, x.shape[1:]) >= int(rate * 2**32)
    return x * kept / (1.0 - rate)


def random_bits(seeds_B: Tensor, site: int, shape: torch.Size) -> Tensor:
    """32 random bits for each element of each row, (B, *shape), in int64; `seeds_B` and `site` as for dropout."""
    row_B = mix(seeds_B + 0x9E3779B9 * (site + 1) & 0xFFFFFFFF)
    element = torch.arange(shape.numel(), device=seeds_B.device).view(shape)
    return mix(mix(element) ^ row_B.view(-1, *[1] * len(shape)))


def next_layer(seeds_B: Tensor | None) -> Tensor | None:
    """The seeds of the layer above."""
    return None if seeds_B is None else mix(seeds_B + 1) >> 1
