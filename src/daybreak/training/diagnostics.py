"""What a training run looks like inside: how much a step changes each layer, and how large its logits are."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from daybreak.configuration import Configuration
from daybreak.distributed import Ranks, own_part
from daybreak.duration import Duration, IntervalField, Unit
from daybreak.hardware import PrecisionName, autocast, is_out_of_memory
from daybreak.model.gpt import GPT
from daybreak.progress import say

ROWS = 4  # of validation, whose logits are looked at


@final
class DiagnosticsConfig(Configuration):
    """Sizes of updates and of logits by layer, in `metrics.jsonl` as `layers`.

    Attributes:
        every: how often; of a step that was skipped or rolled back, nothing is measured.
    """

    every: IntervalField = Duration(5, Unit.PERCENT)


@final
@dataclass(frozen=True)
class Diagnostics:
    """Measures a step from outside; training goes on with the same bits.

    Attributes:
        every: how often; None for never.
        tokens: rows (R, T), always the same; the logits of the first few are looked at.
        at_once: rows that go through the model together, a divisor of R.
    """

    every: Duration | None
    tokens: Tensor
    at_once: int
    precision: PrecisionName

    def largest_logits(self, model: GPT) -> dict[str, float]:
        """The largest logit that a softmax gets, in the attention of each layer and in the head."""
        passes = torch.split(self.tokens, self.at_once)
        with autocast(self.tokens.device, self.precision):
            largest = [
                model.largest_logits(rows, min(self.at_once, ROWS - index * self.at_once))
                for index, rows in enumerate(passes)
            ]
        names = [f"blocks.{layer}" for layer in range(len(model.blocks))]
        return dict(zip([*names, "head"], torch.stack(largest).amax(0).tolist(), strict=True))


def copied_matrices(model: nn.Module, ranks: Ranks) -> dict[str, Tensor] | None:
    """Each weight matrix and table, as it is on this rank, by name; None where memory does not suffice on some rank."""
    copies: dict[str, Tensor] = {}
    enough = True
    try:
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                copies[name] = own_part(parameter.detach()).clone()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        enough = False
    if ranks.any(not enough):
        say("warning: memory does not suffice to measure this step's update (diagnostics.every=never)")
        return None
    return copies


def update_sizes(model: nn.Module, before: Mapping[str, Tensor], ranks: Ranks) -> dict[str, float]:
    """Of each layer, the RMS of what a step changed of its weights over the RMS of what they were.

    Over all its matrices together; biases and gains are left out. Every rank must ask.

    Args:
        before: by `copied_matrices`.
    """
    after = {name: own_part(parameter.detach()) for name, parameter in model.named_parameters() if name in before}
    norms = [[_norm(tensor - before[name]), _norm(before[name])] for name, tensor in after.items()]
    squares = torch.tensor(torch.stack([torch.stack(pair) for pair in norms]).tolist(), dtype=torch.float64).square()
    by_layer: dict[str, list[Tensor]] = {}
    for name, pair in zip(after, squares, strict=True):
        by_layer.setdefault(_layer(name), []).append(pair)
    sums = iter(ranks.sums([number for pairs in by_layer.values() for number in torch.stack(pairs).sum(0).tolist()]))
    return {layer: _ratio(changed, weighed) for layer, changed, weighed in zip(by_layer, sums, sums, strict=True)}


def _layer(name: str) -> str:
    """Of a parameter's name, the part of the model that is looked at: `embedding`, `blocks.3`, `head`."""
    part, second, *_ = name.split(".")
    return f"{part}.{second}" if part == "blocks" else part


def _norm(tensor: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(tensor, dtype=torch.float32)
    return norm


def _ratio(changed: float, weighed: float) -> float:
    """Infinite where the weights were zero."""
    return math.sqrt(changed / weighed) if weighed else math.inf
