"""Normalisation: LayerNorm (Ba et al. 2016) and RMSNorm (Zhang and Sennrich 2019)."""

from typing import Literal, final

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from daybreak.configuration import Configuration


@final
class NormConfig(Configuration):
    """Which norm the model uses everywhere.

    Attributes:
        kind: `layernorm` (its bias follows `model.bias`) or `rmsnorm`.
        eps: added to the variance.
    """

    kind: Literal["layernorm", "rmsnorm"] = "layernorm"
    eps: float = Field(default=1e-5, gt=0)


@final
class ExtraNormsConfig(Configuration):
    """Where a norm stands besides in front of every residual branch and at the end.

    Attributes:
        after_embedding: on the sum of embedding and position.
        shared: the norm after the embedding also serves as the final one (one set of weights).
        over_logits: over the vocabulary, behind the head.
    """

    after_embedding: bool = False
    shared: bool = False
    over_logits: bool = False


@final
class Norm(nn.Module):
    """Normalise the last dimension: (..., D) to (..., D), in fp32."""

    def __init__(self, config: NormConfig, dim: int, bias: bool) -> None:
        super().__init__()
        self.kind, self.eps = config.kind, config.eps
        self.weight = nn.Parameter(torch.empty(dim))
        self.bias = nn.Parameter(torch.empty(dim)) if bias and config.kind == "layernorm" else None

    @torch.no_grad()
    def initialise(self) -> None:
        """Weight 1, bias 0."""
        self.weight.fill_(1.0)
        if self.bias is not None:
            self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "layernorm":
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        return rms_norm(x, self.eps) * self.weight


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) over the last dimension; written out, since the fused one is slow backwards on CPU."""
    x32 = x.float()
    return (x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + eps)).to(x.dtype)
