"""Optimizers: parameter groups and AdamW (Loshchilov and Hutter 2017)."""

from typing import Annotated, Literal, final

import torch
from pydantic import Field
from torch import Tensor, nn

from daybreak.configuration import Configuration, default_kind
from daybreak.errors import UserError

Beta = Annotated[float, Field(ge=0, lt=1)]


@final
class AdamWConfig(Configuration):
    """AdamW, in torch's fused form. Weight decay acts on tensors of two or more dimensions only.

    Attributes:
        lr: peak learning rate, which the schedule scales.
        clip: largest norm of the whole gradient; 0 does not clip.
    """

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(gt=0)
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    clip: float = Field(default=1.0, ge=0)


@final
class AdamW8bitConfig(Configuration):
    """AdamW whose moments are kept in eight bits (Dettmers et al. 2021)."""

    kind: Literal["adamw8bit"]
    lr: float = Field(gt=0)
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    clip: float = Field(default=1.0, ge=0)


Optimizer = AdamWConfig | AdamW8bitConfig
OptimizerConfig = Annotated[Optimizer, Field(discriminator="kind"), default_kind("adamw")]


def build_optimizer(config: Optimizer, model: nn.Module) -> torch.optim.AdamW:
    """The optimizer for a model's parameters.

    Raises:
        UserError: this kind does not work yet.
    """
    if isinstance(config, AdamW8bitConfig):
        raise UserError("optimizer.kind = adamw8bit does not work yet; use optimizer.kind=adamw")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=parameters[0].device.type in ("cpu", "cuda", "mps"),
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The same for every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def unscale_and_clip(model: nn.Module, largest: float, *, scale: float) -> Tensor:
    """Divide all gradients by `scale`, then shrink them to a norm of at most `largest` (0: any).

    Returns:
        The norm of the whole gradient behind the division and before clipping, a scalar.
    """
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads) / scale
    factor = 1.0 / scale
    if largest:
        torch._foreach_mul_(grads, torch.clamp(largest / (norm + 1e-6), max=1.0) * factor)
    elif factor != 1.0:
        torch._foreach_mul_(grads, factor)
    return norm
