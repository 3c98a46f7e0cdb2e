"""Initial values that depend on (seed, parameter name) alone.

So that adding a part leaves every other initial value as it was, which paired comparisons need.
"""

import hashlib
from typing import Literal, final

import torch
from pydantic import Field
from torch import Tensor, nn

from daybreak.configuration import Configuration


@final
class InitialisationConfig(Configuration):
    """How weights begin (GPT-2, section 2.3, for `scaled`).

    Attributes:
        std: standard deviation of weight matrices and embeddings.
        output: of the projections that end a residual branch: `scaled` divides `std` by
            sqrt(2 · layers); `zero` makes every block begin as the identity.
    """

    std: float = Field(default=0.02, ge=0)
    output: Literal["scaled", "zero"] = "scaled"

    def output_std(self, layers: int) -> float:
        return 0.0 if self.output == "zero" else self.std / (2 * layers) ** 0.5


def normal_(parameter: Tensor, std: float, *, seed: int, name: str) -> None:
    """Fill with N(0, std²) drawn on the CPU, the same on every device."""
    if std == 0.0:
        parameter.zero_()
        return
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    values = torch.empty(parameter.shape, dtype=torch.float32).normal_(0.0, std, generator=generator)
    parameter.copy_(values)


def table(rows: int, width: int) -> nn.Embedding:
    """An embedding without values: `nn.Embedding` would draw some, for which torch imports its compiler on `meta`."""
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))


def linear_(layer: nn.Linear, std: float, *, seed: int, name: str) -> None:
    """Initialise a linear layer: normal weight, zero bias."""
    normal_(layer.weight, std, seed=seed, name=f"{name}.weight")
    if layer.bias is not None:
        layer.bias.zero_()
