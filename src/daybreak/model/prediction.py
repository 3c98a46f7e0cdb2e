"""Which positions of a row the training loss counts: all, or a chosen share of them.

Shape legend: B rows, T positions of a row, C chosen ones.
"""

from typing import Literal, final

import torch
from pydantic import Field
from torch import Tensor

from daybreak.configuration import Configuration
from daybreak.model.dropout import random_bits

_SITE = 3  # of a row's seed; dropout has those below


@final
class PredictionConfig(Configuration):
    """How much of each row is predicted while training; evaluation always counts every token.

    Attributes:
        share: of the positions of a row, rounded to a whole number of them; the head computes no others.
        choose: `random` positions, the same however often a step is done; or the `hardest`, those of a row with the
            highest loss (as Lin et al. 2024, "Rho-1", without their reference model), found by one more forward pass
            of the head.
    """

    share: float = Field(default=1.0, gt=0, le=1)
    choose: Literal["random", "hardest"] = "random"

    def count(self, length: int) -> int:
        """How many positions of a row of `length` tokens are predicted; at least 1."""
        return max(1, round(self.share * length))


def random_positions(seeds_B: Tensor, length: int, count: int, counted_BT: Tensor | None = None) -> Tensor:
    """`count` of the positions of each row, (B, C), increasing: a function of the row's seed alone.

    Args:
        counted_BT: which have a target, all unless given; others come in only where there are too few of them.
    """
    bits_BT = random_bits(seeds_B, _SITE, torch.Size((length,)))
    unequal_BT = bits_BT * length + torch.arange(length, device=seeds_B.device)  # else devices may break ties unlike
    if counted_BT is not None:
        unequal_BT = unequal_BT.where(counted_BT, -1)
    return unequal_BT.topk(count).indices.sort().values


def hardest_positions(losses_BT: Tensor, count: int) -> Tensor:
    """The `count` positions of each row with the highest loss, (B, C), increasing."""
    return losses_BT.topk(count).indices.sort().values
