"""How a model computes what it computes: choices of a run's execution, none of which is part of the model."""

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Kernels:
    """Ways of computing that change no value beyond rounding.

    Attributes:
        loss_rows: rows whose logits the loss holds at once; 0 holds all.
        fused_attention: torch's fused kernels; otherwise attention is written out, with all its scores.
        bf16_copies: a training pass reads bf16 copies of the weights and hands bf16 from block to block. The weights
            themselves, their gradients, and all passes without gradients are as ever.
    """

    loss_rows: int = 0
    fused_attention: bool = True
    bf16_copies: bool = False


PLAIN = Kernels()
