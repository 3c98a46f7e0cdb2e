"""Optimizers: which parameters each is for, and their schedules and clipping."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self, final

import torch
from pydantic import Field, model_validator
from torch import nn

from daybreak.configuration import Configuration, default_kind
from daybreak.distributed import full_tensor
from daybreak.duration import Duration, DurationField, Unit
from daybreak.training.adamw import AdamW, spare_the_compiler
from daybreak.training.adamw8bit import AdamW8bit
from daybreak.training.budget import Moment
from daybreak.training.muon import Muon

_TABLES = ("embedding.", "position.weight", "ngrams.", "values.")  # parameters that are read by token
_FIRST_MOMENTUM = 0.85  # where the warm-up of Muon's momentum begins

Beta = Annotated[float, Field(ge=0, lt=1)]


@final
class AdamWConfig(Configuration):
    """AdamW. Weight decay acts on tensors of two or more dimensions only.

    Attributes:
        lr: peak learning rate, which the schedule scales.
        betas: how fast the means of the gradient and of its square forget (Kingma and Ba 2014).
        eps: added to the root of the mean square.
        weight_decay: the share, times the learning rate, that a step takes off (Loshchilov and Hutter 2017).
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
    """AdamW whose moments are kept in eight bits (Dettmers et al. 2021); needs the package torchao.

    Weight decay acts on tensors of two or more dimensions only.

    Attributes:
        lr: peak learning rate, which the schedule scales.
        betas: how fast the means of the gradient and of its square forget (Kingma and Ba 2014).
        eps: added to the root of the mean square.
        weight_decay: the share, times the learning rate, that a step takes off (Loshchilov and Hutter 2017).
        clip: largest norm of the whole gradient; 0 does not clip.
    """

    kind: Literal["adamw8bit"]
    lr: float = Field(gt=0)
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    clip: float = Field(default=1.0, ge=0)


@final
class MuonConfig(Configuration):
    """Muon for the weight matrices of blocks; AdamW for embeddings, head, norms and biases (Jordan et al. 2024).

    Attributes:
        lr: peak of the matrices' learning rate.
        momentum: how much of the mean gradient so far a step keeps (Nesterov's).
        momentum_warmup: how long momentum rises to its value, from 0.85 (as modded-nanogpt).
        weight_decay: of the matrices; the rest has none.
        cautious: decay only where it goes the update's way (Chen et al. 2025, "Cautious Weight Decay").
        adam_lr: peak of the rest's.
        embedding_lr: peak of that of tables read by token (embedding, n-grams, values); `adam_lr` unless stated.
        betas: AdamW's, for the rest.
        eps: added to the root of the mean square, in AdamW.
        clip: largest norm of the whole gradient; 0 does not clip.
    """

    kind: Literal["muon"]
    lr: float = Field(default=0.02, gt=0)
    momentum: Beta = 0.95
    momentum_warmup: DurationField = Duration(0, Unit.PERCENT)
    weight_decay: float = Field(default=0.0, ge=0)
    cautious: bool = False
    adam_lr: float = Field(default=3e-3, gt=0)
    embedding_lr: float | None = Field(default=None, gt=0)
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    clip: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _has_a_decay_to_restrain(self) -> Self:
        if self.cautious and not self.weight_decay:
            raise ValueError("optimizer.cautious = true needs optimizer.weight_decay above 0: nothing decays")
        return self


Optimizer = AdamWConfig | AdamW8bitConfig | MuonConfig
OptimizerConfig = Annotated[Optimizer, Field(discriminator="kind"), default_kind("adamw")]


def build_optimizers(config: Optimizer, model: nn.Module, *, fused: bool = True) -> tuple[torch.optim.Optimizer, ...]:
    """The optimizers for a model's parameters, each of which is in exactly one, unless it is frozen.

    Args:
        fused: AdamW in one kernel for all tensors, where there is one; otherwise as torch does it by default.

    Raises:
        UserError: a package that this kind needs is not installed.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    spare_the_compiler()
    match config:
        case AdamWConfig():
            built: list[torch.optim.Optimizer] = [
                _adamw(parameters.values(), config.lr, config.weight_decay, config, fused)
            ]
        case MuonConfig():
            matrices = {name: p for name, p in parameters.items() if name.startswith("blocks.") and p.ndim == 2}
            tables = {name: p for name, p in parameters.items() if name.startswith(_TABLES)}
            rest = [p for name, p in parameters.items() if name not in matrices and name not in tables]
            built = [_muon(matrices.values(), config)] if matrices else []
            for some, lr in ((list(tables.values()), config.embedding_lr or config.adam_lr), (rest, config.adam_lr)):
                built += [_adamw(some, lr, 0.0, config, fused)] if some else []
        case AdamW8bitConfig():
            groups = _groups(parameters.values(), config.weight_decay)
            built = [AdamW8bit(groups, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=0.0)]
    for optimizer in built:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return tuple(built)


def moment_bytes(config: Optimizer) -> int:
    """What an optimizer keeps of a parameter's element, at most."""
    return 3 if config.kind == "adamw8bit" else 8


def _muon(matrices: Iterable[nn.Parameter], config: MuonConfig) -> Muon:
    return Muon(
        matrices,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        cautious=config.cautious,
    )


def _adamw(
    parameters: Iterable[nn.Parameter], lr: float, weight_decay: float, config: AdamWConfig | MuonConfig, fused: bool
) -> AdamW:
    groups = _groups(parameters, weight_decay)
    has_kernel = groups[0]["params"][0].device.type in ("cpu", "cuda", "mps")
    return AdamW(groups, lr=lr, betas=config.betas, eps=config.eps, fused=True if fused and has_kernel else None)


def _groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Those that decay, and those that do not."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def set_learning_rates(optimizers: Iterable[torch.optim.Optimizer], share: float) -> None:
    """The same share of its peak for every group."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = share * group["peak_lr"]


def set_momentum(optimizers: Iterable[torch.optim.Optimizer], config: Optimizer, moment: Moment) -> None:
    """Muon's momentum at this moment; others keep theirs."""
    if isinstance(config, MuonConfig):
        for optimizer in optimizers:
            for group in optimizer.param_groups if isinstance(optimizer, Muon) else ():
                group["momentum"] = muon_momentum(config, moment)


def muon_momentum(config: MuonConfig, moment: Moment) -> float:
    """A line from 0.85 up to its own over its warm-up.

    Raises:
        UserError: the warm-up cannot be counted against the budget.
    """
    warmup = moment.share_of(config.momentum_warmup, "optimizer.momentum_warmup")
    part = min(1.0, moment.progress / warmup) if warmup else 1.0
    return _FIRST_MOMENTUM + part * (config.momentum - _FIRST_MOMENTUM)


def unscale_and_clip(model: nn.Module, largest: float, *, scale: float) -> float:
    """Divide all gradients by `scale`, then shrink them to a norm of at most `largest` (0: any).

    Returns:
        The norm of the whole gradient behind the division and before clipping, the same on every rank.
    """
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = full_tensor(torch.nn.utils.get_total_norm(grads)) / scale
    factor = 1.0 / scale
    if largest:
        torch._foreach_mul_(grads, torch.clamp(largest / (norm + 1e-6), max=1.0) * factor)
    elif factor != 1.0:
        torch._foreach_mul_(grads, factor)
    return float(norm.item())
