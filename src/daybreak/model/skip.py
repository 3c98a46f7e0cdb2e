"""Skips from the embedding, and scales of the residual stream.

Shape legend: B batch, T time, D dim.
"""

from typing import final

import torch
from torch import Tensor, nn


@final
class EmbeddingSkip(nn.Module):
    """What enters layer l is r_l · x + s_l · x_0, x_0 the embedding: (B, T, D) to (B, T, D) (after modded-nanogpt).

    Both scales are learned; r begins at 1 and s at 0, which changes nothing.
    """

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.residual_scale = nn.Parameter(torch.empty(layers))
        self.embedding_scale = nn.Parameter(torch.empty(layers))

    @torch.no_grad()
    def initialise(self) -> None:
        self.residual_scale.fill_(1.0)
        self.embedding_scale.zero_()

    def forward(self, x_BTD: Tensor, x0_BTD: Tensor, layer: int) -> Tensor:
        return self.residual_scale[layer] * x_BTD + self.embedding_scale[layer] * x0_BTD
