"""Muon: momentum, made orthogonal, for the weight matrices of blocks (Jordan et al. 2024).

Shape legend: N matrices of one shape, R rows, C columns.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, final

import torch
from torch import Tensor

from daybreak.distributed import full_tensor, shard_like

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_EPS = 1e-7


@final
class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose matrices are brought near the nearest orthogonal ones, then scaled by sqrt(max(1, R/C)).

    Matrices of one shape are treated at once. Sharded ones keep a share of their momentum on each rank; the update is
    gathered whole, since no shard of it can be made orthogonal alone, and each rank applies its share.

    Args:
        params: tensors of two dimensions.
        cautious: decay only weights whose update has their sign, so that decay never works against it.
    """

    def __init__(
        self, params: Iterable[Tensor], *, lr: float, momentum: float, weight_decay: float, cautious: bool = False
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "cautious": cautious})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for same in _by_shape(group["params"]):
                updates = [full_tensor(self._momentum(parameter, group["momentum"])) for parameter in same]
                rows, columns = same[0].shape
                scale = group["lr"] * max(1.0, rows / columns) ** 0.5
                for parameter, update_RC in zip(same, orthogonalised(torch.stack(updates)), strict=True):
                    update = shard_like(parameter, update_RC).to(parameter.dtype)
                    decay = group["lr"] * group["weight_decay"]
                    if decay and group["cautious"]:
                        parameter.addcmul_(parameter, (update * parameter > 0).to(parameter.dtype), value=-decay)
                    elif decay:
                        parameter.mul_(1 - decay)
                    parameter.add_(update, alpha=-scale)

    def _momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        assert parameter.grad is not None
        state: dict[str, Any] = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["momentum"], momentum)


def orthogonalised(matrices_NRC: Tensor) -> Tensor:
    """Each matrix with its singular values brought near 1, by five Newton-Schulz steps in bf16 (Jordan et al. 2024)."""
    a, b, c = _COEFFICIENTS
    tall = matrices_NRC.shape[1] > matrices_NRC.shape[2]
    x_NRC = matrices_NRC.bfloat16()
    x_NRC = x_NRC.mT if tall else x_NRC
    x_NRC = x_NRC / x_NRC.norm(dim=(1, 2), keepdim=True).clamp(min=_EPS)
    for _ in range(_ITERATIONS):
        gram_NRR = x_NRC @ x_NRC.mT
        polynomial_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
        x_NRC = torch.baddbmm(x_NRC, polynomial_NRR, x_NRC, beta=a)
    return x_NRC.mT if tall else x_NRC


def _by_shape(parameters: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Those that have a gradient, in groups of one shape."""
    groups: dict[torch.Size, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            groups.setdefault(parameter.shape, []).append(parameter)
    yield from groups.values()
