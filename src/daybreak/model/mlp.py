"""The feed-forward part: plain, or gated (Shazeer 2020, "GLU variants improve transformer")."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal, final

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from daybreak.configuration import Configuration, default_kind
from daybreak.model.dropout import dropout
from daybreak.model.initialise import linear_

Activation = Literal["gelu", "gelu_tanh", "silu", "relu", "relu2"]


@final
class PlainMLPConfig(Configuration):
    """`down(activation(up(x)))`; `hidden` is 4 · dim unless stated.

    Attributes:
        activation: GELU, its tanh form (GPT-2's own), SiLU, ReLU, or its square.
        hidden: the width between `up` and `down`; 4 · dim unless given.
    """

    kind: Literal["plain"] = "plain"
    activation: Activation = "gelu"
    hidden: int | None = Field(default=None, gt=0)


@final
class GatedMLPConfig(Configuration):
    """`down(activation(gate(x)) · value(x))`; `hidden` is the width of gate and of value.

    Attributes:
        activation: of the gate; with `silu` this is SwiGLU, with `gelu` GEGLU.
        hidden: the width of gate and of value; 8/3 · dim has the parameters of a plain one.
    """

    kind: Literal["glu"]
    activation: Activation = "gelu"
    hidden: int = Field(gt=0)


MLPConfig = Annotated[PlainMLPConfig | GatedMLPConfig, Field(discriminator="kind"), default_kind("plain")]


def _squared_relu(x: Tensor) -> Tensor:
    """So et al. 2021, "Primer"."""
    return F.relu(x).square()


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "relu": F.relu,
    "relu2": _squared_relu,
}


@final
class MLP(nn.Module):
    """(B, T, D) to (B, T, D), each position by itself."""

    def __init__(self, config: PlainMLPConfig | GatedMLPConfig, dim: int, bias: bool, dropout: float) -> None:
        super().__init__()
        self.gated = isinstance(config, GatedMLPConfig)
        hidden = config.hidden or 4 * dim
        self.activation, self.dropout = _ACTIVATIONS[config.activation], dropout
        self.up = nn.Linear(dim, 2 * hidden if self.gated else hidden, bias=bias)
        self.down = nn.Linear(hidden, dim, bias=bias)

    @torch.no_grad()
    def initialise(self, seed: int, name: str, std: float, output_std: float) -> None:
        """Draw the weights; `output_std` is that of the projection back to the residual stream."""
        linear_(self.up, std, seed=seed, name=f"{name}.up")
        linear_(self.down, output_std, seed=seed, name=f"{name}.down")

    def forward(self, x_BTD: Tensor, seeds_B: Tensor | None = None) -> Tensor:
        hidden_BTF = self.up(x_BTD)
        if self.gated:
            gate_BTF, value_BTF = hidden_BTF.chunk(2, dim=-1)
            hidden_BTF = self.activation(gate_BTF) * value_BTF
        else:
            hidden_BTF = self.activation(hidden_BTF)
        return dropout(self.down(hidden_BTF), self.dropout, seeds_B, site=2)
