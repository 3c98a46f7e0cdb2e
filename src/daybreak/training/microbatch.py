"""The micro-batch: how many rows pass through the model at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch

from daybreak.data.batches import Batches, largest_divisor
from daybreak.errors import UserError
from daybreak.hardware import PrecisionName, free_memory
from daybreak.model.gpt import ModelConfig
from daybreak.model.kernels import Kernels

LOGIT_BYTES = 12  # a logit, its softmax and its gradient
_SHARE_OF_FREE_MEMORY = 0.6
_CPU_TOKENS = 8192  # more rows at once only push activations out of the caches
_GAIN = 1.03  # in rows a second that is worth a larger micro-batch: less may be noise
_GROWTH = 1.5  # from one candidate to the next, at least


def fitting_micro_batch(
    rows: int,
    model: ModelConfig,
    *,
    parameter_bytes: int,
    length: int,
    kernels: Kernels,
    device: torch.device,
    precision: PrecisionName,
    recompute: bool = False,
) -> int:
    """The most rows that divide `rows` and fit into the free memory by estimate; at least 1."""
    free = free_memory(device) - parameter_bytes
    chunk = LOGIT_BYTES * model.vocab_size * kernels.loss_rows
    each = row_bytes(model, length, kernels, precision, recompute=recompute)
    fits = int((_SHARE_OF_FREE_MEMORY * free - chunk) // each)
    if device.type == "cpu":
        fits = min(fits, _CPU_TOKENS // length)
    return largest_divisor(rows, max(1, fits))


def row_bytes(
    model: ModelConfig, length: int, kernels: Kernels, precision: PrecisionName, *, recompute: bool = False
) -> int:
    """Estimate of the bytes that one row keeps until its backward pass, of which one block's come anew if asked."""
    width = 2 if precision in ("bf16", "fp16") else 4
    between = 2 if kernels.bf16_copies else 4
    hidden = model.mlp.hidden or 4 * model.dim
    gated = 3 if model.mlp.kind == "glu" else 2
    per_layer = (8 * width + 2 * between) * model.dim + gated * hidden * width
    scores = 3 * 4 * model.heads * length if model.dropout or not kernels.fused_attention else 0
    kept = model.layers * (per_layer + scores)
    if recompute:
        kept = model.layers * between * model.dim + per_layer + scores
    logits = 0 if kernels.loss_rows else LOGIT_BYTES * model.vocab_size
    return length * (kept + logits)


@final
@dataclass(frozen=True)
class Trial:
    """A micro-batch as it was timed, forward and backward."""

    rows: int
    seconds: float

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds


def candidates(rows: int, limit: int) -> list[int]:
    """Growing divisors of `rows` up to `limit`, far enough apart to differ; the largest is among them."""
    largest = largest_divisor(rows, limit)
    found: list[int] = []
    for count in range(1, largest):
        if rows % count == 0 and count >= _GROWTH * (found[-1] if found else 0) and _GROWTH * count <= largest:
            found.append(count)
    return [*found, largest]


def fastest(trials: Sequence[Trial]) -> Trial:
    """The one with the highest rate; one with more rows only where it gains enough."""
    best = trials[0]
    for trial in trials[1:]:
        if trial.rate >= _GAIN * best.rate:
            best = trial
    return best


def has_peaked(trials: Sequence[Trial]) -> bool:
    """Whether neither of the last two gained."""
    return fastest(trials) not in trials[-2:]


def still_gains(trials: Sequence[Trial]) -> bool:
    """Whether the last gained on the one before it, so that more rows might gain more; True of fewer than two."""
    return len(trials) < 2 or trials[-1].rate >= _GAIN * trials[-2].rate


def rows_that_fit(few: tuple[int, float], many: tuple[int, float], available: float) -> int:
    """How many rows take at most `available` bytes, on the line through two measured (rows, peak bytes); at least 1."""
    (few_rows, low), (many_rows, high) = few, many
    row = max(1.0, (high - low) / (many_rows - few_rows))
    return max(1, int(few_rows + (available - low) / row))


def halve_micro_batch(batches: Batches, device: torch.device, ranks: int) -> int:
    """Pass fewer rows at once, since memory ran out: the same steps. Returns how many.

    Raises:
        UserError: it was one row already, or other ranks wait in the middle of a step.
    """
    lacking = f"{device} ran out of memory with a micro-batch of {batches.micro_batch}"
    if batches.micro_batch == 1:
        raise UserError(f"{lacking}; use a smaller model or a smaller model.context")
    half = largest_divisor(batches.rows_per_rank, batches.micro_batch // 2)
    if ranks > 1:
        raise UserError(f"{lacking}; give execution.micro_batch={half}, which goes on from the last checkpoint")
    batches.micro_batch = half
    return half
