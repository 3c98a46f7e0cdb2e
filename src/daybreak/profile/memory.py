"""Memory by part: what formulas say, and what is measured of one micro-batch and its update, not compiled."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from daybreak.compose import build_learner
from daybreak.data.batches import Rows
from daybreak.distributed import ALONE
from daybreak.hardware import PrecisionName, autocast
from daybreak.memory import peak_bytes
from daybreak.model.gpt import GPT, count_parameters
from daybreak.recipe import Recipe
from daybreak.training.execution import Execution
from daybreak.training.microbatch import LOGIT_BYTES, row_bytes
from daybreak.training.optimizer import unscale_and_clip


@final
@dataclass(frozen=True)
class Part:
    """Bytes of one part; an estimate of None is none at all."""

    name: str
    estimated: int | None
    measured: int


def memory_by_part(
    recipe: Recipe, execution: Execution, rows: Rows, device: torch.device, separator: int | None
) -> list[Part]:
    """Weights, gradients, optimizer state, activations, logits, and the most that all took at once."""
    model, optimizers = build_learner(recipe, execution, device, ALONE, separator)
    config, precision = recipe.model, execution.precision
    weights = 4 * count_parameters(config)
    tokens = rows.inputs.numel()

    activations, x_BTD = _activations(model, rows, precision)

    def lose() -> None:
        x_ND = x_BTD.flatten(0, 1).requires_grad_()
        with autocast(device, precision):
            loss = model.head.loss(x_ND, model.embedding.weight, rows.targets.flatten())
        torch.autograd.backward(loss)

    logits = peak_bytes(lose, device)
    model.zero_grad(set_to_none=True)

    def step() -> None:
        with autocast(device, precision):
            loss = model(rows.inputs, rows.targets, rows.dropout_seeds) / rows.counted
        loss.backward()
        unscale_and_clip(model, recipe.optimizer.clip, scale=1.0)
        for optimizer in optimizers:
            optimizer.step()

    step()  # makes the optimizer's state
    gradients = _bytes(parameter.grad for parameter in model.parameters())
    model.zero_grad(set_to_none=True)
    state = _bytes(value for each in optimizers for of in each.state.values() for value in of.values())
    peak = _bytes(model.parameters()) + state + peak_bytes(step, device)
    rows_estimated = len(rows.inputs) * row_bytes(
        config, recipe.row_length, execution.kernels, precision, recompute=execution.recompute
    )
    all_logits = 0 if execution.loss_rows else LOGIT_BYTES * config.vocab_size * tokens
    held = LOGIT_BYTES * config.vocab_size * min(tokens, execution.loss_rows or tokens)
    head = 2 * 4 * config.vocab_size * config.dim  # the gradient of its weight: the sum, and a chunk's
    kinds = {"adamw": 2 * weights, "adamw8bit": weights // 2}
    return [
        Part("weights", weights, _bytes(model.parameters())),
        Part("gradients", weights, gradients),
        Part("optimizer state", kinds.get(recipe.optimizer.kind), state),
        Part("activations", rows_estimated - all_logits, activations),
        Part("logits and the head's gradients", held + head, logits),
        Part("all, at their most", None, peak),
    ]


def _activations(model: GPT, rows: Rows, precision: PrecisionName) -> tuple[int, Tensor]:
    """Bytes that the blocks keep of a micro-batch, which are free again on return; and what they came to."""
    with autocast(rows.inputs.device, precision), saved_for_backward() as kept:
        x_BTD = model.features(rows.inputs, seeds_B=rows.dropout_seeds).detach()
    return kept.bytes, x_BTD


@final
class Kept:
    """What a forward pass kept for its backward pass.

    Attributes:
        bytes: of all storages but those of parameters, each counted once.
    """

    def __init__(self) -> None:
        self._storages: dict[int, torch.UntypedStorage] = {}

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self._storages.values())

    def add(self, tensor: Tensor) -> Tensor:
        base = tensor if tensor._base is None else tensor._base
        if not isinstance(base, nn.Parameter):
            storage = tensor.untyped_storage()
            self._storages[storage.data_ptr()] = storage
        return tensor


@contextmanager
def saved_for_backward() -> Iterator[Kept]:
    """Note what autograd keeps inside."""
    kept = Kept()
    with torch.autograd.graph.saved_tensors_hooks(kept.add, lambda tensor: tensor):
        yield kept


def _bytes(tensors: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))
