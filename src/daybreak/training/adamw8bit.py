"""AdamW whose moments are kept in eight bits (Dettmers et al. 2021), with torchao's quantisation.

torchao's own optimizer compiles its step for every shape, and keeps tensor subclasses, which safetensors cannot hold.
This one is eager, piece by piece, and keeps plain tensors: of each moment one code an element and one scale a block.

Shape legend: N elements of a piece of a parameter, flat.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, final

import torch
from torch import Tensor

from daybreak.checkpoint import BLOCK
from daybreak.errors import UserError

_LEAST_ELEMENTS = 4096  # smaller tensors keep fp32 moments: they weigh nothing
_PIECE = 1 << 22  # elements updated at once, with some 30 bytes of fp32 values and indices each
_MOMENTS = ("exp_avg", "exp_avg_sq")


@final
class AdamW8bit(torch.optim.Optimizer):
    """AdamW with block-wise dynamic 8-bit moments: about two bytes a parameter in place of eight.

    Blocks of 256 elements share a scale, their largest absolute value. The update is computed in fp32, from moments
    before they are rounded again.

    Args:
        params: tensors, or groups of them.

    Raises:
        UserError: torchao is not installed.
    """

    def __init__(
        self, params: Iterable[Any], *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        _require_torchao()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    _update(self.state[parameter], parameter, parameter.grad, group)


def _update(state: dict[str, Any], parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
    if not state:
        state |= _zeros(parameter)
    state["step"] += 1
    corrections = [1 - beta ** state["step"] for beta in group["betas"]]
    value_N, grad_N = parameter.detach().view(-1), grad.reshape(-1)
    for start in range(0, len(value_N), _PIECE):
        part = slice(start, start + _PIECE)
        grad_part = grad_N[part].float()
        first, second = (_moment(state, name, part) for name in _MOMENTS)
        first.lerp_(grad_part, 1 - group["betas"][0])
        second.lerp_(grad_part.square(), 1 - group["betas"][1])
        for name, moment in zip(_MOMENTS, (first, second), strict=True):
            _keep(state, name, part, moment)
        denominator = second.sqrt_().div_(corrections[1].sqrt()).add_(group["eps"])
        value = value_N[part].float() * (1 - group["lr"] * group["weight_decay"])
        value_N[part] = value.sub_(first.div_(corrections[0]).div_(denominator).mul_(group["lr"]))


def _moment(state: Mapping[str, Tensor], name: str, part: slice) -> Tensor:
    """Part of a moment in fp32, (N,)."""
    from torchao.optim.quant_utils import dequant_with_qmap

    if name in state:
        return state[name].view(-1)[part].clone()
    codes_N, scales = state[f"{name}.codes"].view(-1)[part], state[f"{name}.scale"][_blocks(part)]
    restored_N: Tensor = dequant_with_qmap(codes_N, _codebook(name, codes_N.device), scales)
    return restored_N


def _keep(state: Mapping[str, Tensor], name: str, part: slice, moment_N: Tensor) -> None:
    """Write part of a moment back, rounded where it is kept in eight bits."""
    from torchao.optim.quant_utils import scale_tensor

    if name in state:
        state[name].view(-1)[part] = moment_N
        return
    scaled_N, state[f"{name}.scale"][_blocks(part)] = scale_tensor(moment_N, BLOCK)
    codebook = _codebook(name, moment_N.device)
    # The nearest code; torchao's own search is eight gathers, which only a compiler makes fast.
    codes_N = torch.bucketize(scaled_N, (codebook[1:] + codebook[:-1]) / 2, out_int32=True, right=True)
    if name == "exp_avg_sq":
        # A second moment that rounds to zero leaves eps alone to divide by, once the gradient ends.
        codes_N.clamp_(min=1)
    state[f"{name}.codes"].view(-1)[part] = codes_N


def _blocks(part: slice) -> slice:
    return slice(part.start // BLOCK, part.stop // BLOCK)


@cache
def _codebook(name: str, device: torch.device) -> Tensor:
    """What each of the 256 codes stands for, between -1 and 1; second moments have no sign."""
    from torchao.optim.quant_utils import create_dynamic_map

    return torch.tensor(create_dynamic_map(signed=name == "exp_avg"), device=device)


def _zeros(parameter: Tensor) -> dict[str, Tensor]:
    """The state of a parameter before its first step."""
    device, elements = parameter.device, parameter.numel()
    state = {"step": torch.zeros((), device=device)}
    for name in _MOMENTS:
        if elements < _LEAST_ELEMENTS or elements % BLOCK:
            state[name] = torch.zeros(parameter.shape, device=device)
        else:
            state[f"{name}.codes"] = torch.zeros(parameter.shape, dtype=torch.uint8, device=device)
            state[f"{name}.scale"] = torch.zeros(elements // BLOCK, device=device)
    return state


def _require_torchao() -> None:
    """Import it, over a second, before the first step needs it."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it warns of GPU kernels that its build lacks, none of which are used here
    try:
        import torchao.optim.quant_utils  # noqa: F401
    except ImportError:
        raise UserError(
            "optimizer.kind = adamw8bit needs the package torchao: pip install 'daybreak[lowbit]'; "
            "or use optimizer.kind=adamw"
        ) from None
    finally:
        logging.disable(before)
