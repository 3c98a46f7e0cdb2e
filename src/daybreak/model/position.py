"""How a model knows where a token stands.

Learned and sinusoidal tables are added to the embedding. Rotary turns queries and keys, ALiBi lowers
scores with distance: both act inside attention.
"""

import math
from functools import lru_cache
from typing import Annotated, Literal, final

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from daybreak.configuration import Configuration, default_kind
from daybreak.model.initialise import normal_


@final
class LearnedPositionConfig(Configuration):
    """A trained vector for each position (GPT-2)."""

    kind: Literal["learned"] = "learned"


@final
class SinusoidalPositionConfig(Configuration):
    """A fixed table of sines and cosines (Vaswani et al. 2017, section 3.5), times one learned scale if asked.

    Attributes:
        learned_scale: one number, learned, multiplies the table; it begins at 1 / sqrt(dim).
    """

    kind: Literal["sinusoidal"]
    learned_scale: bool = False


@final
class RotaryPositionConfig(Configuration):
    """Rotary embedding (Su et al. 2021, "RoFormer"), in the two-halves layout.

    Attributes:
        base: the slowest pair turns by 1 / base of what the fastest does; larger for longer contexts.
    """

    kind: Literal["rotary"]
    base: float = 10_000.0


@final
class AlibiPositionConfig(Configuration):
    """Attention with linear biases (Press et al. 2021)."""

    kind: Literal["alibi"]


@final
class NoPositionConfig(Configuration):
    """Nothing but the causal mask."""

    kind: Literal["none"]


Position = (
    LearnedPositionConfig | SinusoidalPositionConfig | RotaryPositionConfig | AlibiPositionConfig | NoPositionConfig
)
PositionConfig = Annotated[
    Position,
    Field(discriminator="kind"),
    default_kind("learned"),
]


@final
class LearnedPosition(nn.Module):
    """Adds rows start … start + T - 1 of a trained table, or those of `places_BT`: (B, T, D) to (B, T, D)."""

    def __init__(self, context: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(context, dim))

    @torch.no_grad()
    def initialise(self, seed: int, name: str, std: float) -> None:
        """Draw the table."""
        normal_(self.weight, std, seed=seed, name=f"{name}.weight")

    def forward(self, x_BTD: Tensor, start: int, places_BT: Tensor | None = None) -> Tensor:
        end = x_BTD.shape[1] + (start if places_BT is None else 0)
        if end > len(self.weight):
            raise ValueError(f"{end} positions do not fit into a learned table of {len(self.weight)}")
        return x_BTD + (self.weight[start:end] if places_BT is None else F.embedding(places_BT, self.weight))


@final
class SinusoidalPosition(nn.Module):
    """Adds sines and cosines, at positions start … start + T - 1, or at `places_BT`: (B, T, D) to (B, T, D)."""

    def __init__(self, dim: int, learned_scale: bool) -> None:
        super().__init__()
        self.dim = dim
        self.scale = nn.Parameter(torch.empty(())) if learned_scale else None

    @torch.no_grad()
    def initialise(self, seed: int, name: str, std: float) -> None:
        """Begin the scale at 1 / sqrt(dim), as Cramming does; nothing is drawn."""
        if self.scale is not None:
            self.scale.fill_(self.dim**-0.5)

    def forward(self, x_BTD: Tensor, start: int, places_BT: Tensor | None = None) -> Tensor:
        _, T, D = x_BTD.shape
        if places_BT is None:
            added = sinusoids(torch.arange(start, start + T, device=x_BTD.device), D)
        elif T == 1:
            added = sinusoids(places_BT, D)
        else:  # none is larger than T
            added = sinusoids(torch.arange(T, device=x_BTD.device), D)[places_BT]
        return x_BTD + (added if self.scale is None else self.scale * added)


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """Rows of the sinusoidal table, (…, D) for positions (…): sines in even columns, cosines in odd."""
    rates = torch.exp(
        torch.arange(0, dim, 2, device=positions.device, dtype=torch.float32) * (-math.log(10_000.0) / dim)
    )
    angles = positions.float()[..., None] * rates
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def rotary_tables(start: int, length: int, head_size: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines for positions start … start + length - 1, each (T, K/2); kept, since all layers ask alike.

    Compiled blocks take them as constants: a compiler would have each of its kernels compute them for every element.
    """
    return _rotary_tables(start, length, head_size, base, device)


@lru_cache(maxsize=8)
def _rotary_tables(start: int, length: int, head_size: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    rates = base ** (-torch.arange(0, head_size, 2, device=device, dtype=torch.float32) / head_size)
    angles = torch.arange(start, start + length, device=device, dtype=torch.float32)[:, None] * rates
    return angles.cos(), angles.sin()


def rotate(x_BHTK: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn each pair (x[k], x[k + K/2]) by its position's angle."""
    first, second = x_BHTK.float().chunk(2, dim=-1)
    turned = torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1)
    return turned.to(x_BHTK.dtype)


def alibi_slopes(heads: int) -> list[float]:
    """One slope a head, for any number of heads (Press et al. 2021, section 3, and their reference code).

    For a power of two n: 2^(-8/n), 2^(-16/n), …; otherwise those of the next lower power, then
    every other one of the next higher.
    """
    lower = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8.0 * (i + 1) / lower) for i in range(lower)]
    return slopes + [2.0 ** (-4.0 * (i + 1) / lower) for i in range(0, 2 * (heads - lower), 2)]
