"""A transformer block: how attention, MLP and norms join the residual stream.

`seeds_B` turns dropout on; `cache` holds the keys and values in front of x_BTD; `extra_BTE` are values that
attention adds to its own; `documents` keep documents apart, by `Attention.document_mask`.
"""

from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn

from daybreak.model.attention import Attention
from daybreak.model.cache import KeyValues
from daybreak.model.mlp import MLP
from daybreak.model.norm import Norm

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


@final
class SequentialBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) (GPT-2): (B, T, D) to (B, T, D)."""

    def __init__(self, attention: Attention, mlp: MLP, attention_norm: Norm, mlp_norm: Norm) -> None:
        super().__init__()
        self.attention, self.mlp = attention, mlp
        self.attention_norm, self.mlp_norm = attention_norm, mlp_norm

    @torch.no_grad()
    def initialise(self, seed: int, name: str, std: float, output_std: float) -> None:
        """Give every parameter its initial value."""
        self.attention.initialise(seed, f"{name}.attention", std, output_std)
        self.mlp.initialise(seed, f"{name}.mlp", std, output_std)
        self.attention_norm.initialise()
        self.mlp_norm.initialise()

    def forward(
        self,
        x_BTD: Tensor,
        seeds_B: Tensor | None = None,
        cache: KeyValues | None = None,
        extra_BTE: Tensor | None = None,
        documents: "Tensor | BlockMask | None" = None,
    ) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), seeds_B, cache, extra_BTE, documents)
        x_BTD = x_BTD + self.mlp(self.mlp_norm(x_BTD), seeds_B)
        return x_BTD

    def largest_logit(self, x_BTD: Tensor, documents_B1TT: Tensor | None = None) -> Tensor:
        """As `Attention.largest_logit`, for what comes into the block."""
        return self.attention.largest_logit(self.attention_norm(x_BTD), documents_B1TT)


@final
class ParallelBlock(nn.Module):
    """x + mlp(norm(x)) + attention(norm(x)), with one norm (Wang and Komatsuzaki 2021, GPT-J)."""

    def __init__(self, attention: Attention, mlp: MLP, norm: Norm) -> None:
        super().__init__()
        self.attention, self.mlp, self.norm = attention, mlp, norm

    @torch.no_grad()
    def initialise(self, seed: int, name: str, std: float, output_std: float) -> None:
        """Give every parameter its initial value."""
        self.attention.initialise(seed, f"{name}.attention", std, output_std)
        self.mlp.initialise(seed, f"{name}.mlp", std, output_std)
        self.norm.initialise()

    def forward(
        self,
        x_BTD: Tensor,
        seeds_B: Tensor | None = None,
        cache: KeyValues | None = None,
        extra_BTE: Tensor | None = None,
        documents: "Tensor | BlockMask | None" = None,
    ) -> Tensor:
        normed_BTD = self.norm(x_BTD)
        x_BTD = x_BTD + self.mlp(normed_BTD, seeds_B) + self.attention(normed_BTD, seeds_B, cache, extra_BTE, documents)
        return x_BTD

    def largest_logit(self, x_BTD: Tensor, documents_B1TT: Tensor | None = None) -> Tensor:
        """As `Attention.largest_logit`, for what comes into the block."""
        return self.attention.largest_logit(self.norm(x_BTD), documents_B1TT)
