"""AdamW (Loshchilov and Hutter 2017): torch's own, but for what it imports."""

import inspect
from collections.abc import Callable
from typing import final

import torch

_torch_step = inspect.unwrap(torch.optim.AdamW.step)


@final
class AdamW(torch.optim.AdamW):
    """torch's AdamW without the import of torch's compiler, which takes as long as importing torch itself.

    torch imports it to tell it what not to compile: making an optimizer, and stepping it. We compile neither.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        _torch_step(self)


def spare_the_compiler() -> None:
    """Mark the method of optimizers that torch would import its compiler to mark."""
    method = torch.optim.Optimizer.add_param_group.__wrapped__  # type: ignore[attr-defined]
    method.__dynamo_disable = method
