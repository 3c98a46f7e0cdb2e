"""Measure which micro-batch fits and trains fastest, in passes that are thrown away. The model stays as it is.

Passes are eager: a compiler would need seconds for every candidate. All ranks pass the same rows and choose alike.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from daybreak.data.batches import Rows, largest_divisor
from daybreak.distributed import Ranks, synchronise_gradients
from daybreak.hardware import PrecisionName, autocast, is_out_of_memory
from daybreak.progress import say
from daybreak.training.execution import Execution, ExecutionConfig
from daybreak.training.microbatch import (
    Trial,
    candidates,
    fastest,
    has_peaked,
    rows_that_fit,
    still_gains,
)

SHARE_OF_BUDGET = 0.02  # that probing may take
_SHORTEST_RUN = 120.0  # seconds of a budget in time
_FEWEST_STEPS = 1000  # of any other; so that shorter ones repeat bit for bit
_PASSES = 3  # of each candidate, of which the fastest counts
_SHARE_OF_MEMORY = 0.9  # the rest is for what fragments, and for the optimizer's temporary values


@final
@dataclass(frozen=True)
class Allowance:
    """What a run may spend on probing: a share of its seconds, which follow from its rows where its budget is no time.

    Attributes:
        seconds: of the budget; None if it is no time.
        rows: that pass through the model on one rank in the whole run, where it is none.
    """

    seconds: float | None
    rows: float

    def seconds_at(self, row_seconds: float) -> float:
        """What probing may take, if a row takes so long."""
        return SHARE_OF_BUDGET * (self.rows * row_seconds if self.seconds is None else self.seconds)


def is_worth_probing(config: ExecutionConfig, seconds: float | None, steps: int) -> bool:
    """Whether a run leaves its micro-batch to the machine, is long enough, and need not repeat another bit for bit.

    Args:
        seconds: of its budget; None if it is no time.
        steps: of its budget, where it is none.
    """
    if config.micro_batch != "auto" or config.deterministic:
        return False
    return steps >= _FEWEST_STEPS if seconds is None else seconds >= _SHORTEST_RUN


def probe_micro_batch(
    forward: nn.Module,
    step: Sequence[Rows],
    execution: Execution,
    allowance: Allowance,
    *,
    kept_bytes: int,
    ranks: Ranks,
) -> int:
    """The micro-batch that passes most rows a second, of those that fit.

    On CUDA what fits is measured; elsewhere it is what `execution` holds, an estimate.

    Args:
        step: the micro-batches of one, on this rank.
        kept_bytes: on this rank, what accumulation and the optimizer will hold beside a first micro-batch.
    """
    ranks.enter("trying micro-batches")
    began = time.perf_counter()
    passes = _Passes(
        forward,
        inputs=torch.cat([rows.inputs for rows in step]),
        targets=torch.cat([rows.targets for rows in step]),
        dropout_seeds=torch.cat([rows.dropout_seeds for rows in step]),
        precision=execution.precision,
        ranks=ranks,
    )
    step_rows, length = passes.inputs.shape
    synchronise_gradients(forward, now=False)
    try:
        limit, memory = execution.micro_batch, "are estimated to fit"
        if passes.device.type == "cuda":
            limit, memory = _measured_limit(passes, execution, kept_bytes)
        counts = candidates(step_rows, limit)
        if len(counts) == 1:
            return counts[0]
        trials, conclusive = _search(passes, counts, allowance, began)
    finally:
        synchronise_gradients(forward, now=True)
        if passes.device.type == "cuda":
            torch.cuda.empty_cache()  # of pieces that fit other sizes
    chosen = fastest(trials).rows if conclusive else largest_divisor(step_rows, min(execution.micro_batch, limit))
    rates = ", ".join(f"{trial.rows}: {trial.rate * length:,.0f}" for trial in trials) or "none timed"
    why = "the fewest rows near the highest rate" if conclusive else f"to try more takes over {SHARE_OF_BUDGET:.0%}"
    say(
        f"micro-batch {chosen}, {why}; rows and tok/s: {rates}; {limit} {memory}; "
        f"tried in {time.perf_counter() - began:.1f} s"
    )
    return chosen


def _search(passes: "_Passes", counts: list[int], allowance: Allowance, began: float) -> tuple[list[Trial], bool]:
    """Time growing numbers of rows until more gain nothing.

    Returns:
        What was timed, and whether the fastest is among it: not if the allowance ended while more rows still gained.
    """
    trials: list[Trial] = []
    # The first pass of all is slow, and still tells what others will cost.
    pace = passes.seconds(counts[0]) / counts[0]
    for count in counts:
        (spent,) = passes.ranks.of_first(time.perf_counter() - began)
        if spent + _PASSES * count * pace > allowance.seconds_at(pace):
            return trials, not still_gains(trials)
        seconds = [passes.seconds(count) for _ in range(_PASSES)]
        if max(seconds) == math.inf:
            return trials, bool(trials)
        trials.append(Trial(count, min(seconds)))
        pace = min(seconds) / count
        if has_peaked(trials):
            break
    return trials, True


def _measured_limit(passes: "_Passes", execution: Execution, kept_bytes: int) -> tuple[int, str]:
    """Rows that fit on every rank, by the peak memory of two small micro-batches, and how that is said."""
    ranks, device, (step_rows, length) = passes.ranks, passes.device, passes.inputs.shape
    few = max(1, execution.loss_rows // length)  # fewer would not fill a chunk of the loss, which does not grow further
    many = 2 * few
    if many > step_rows:
        few, many = max(1, step_rows // 2), step_rows
    passes.seconds(few)  # what libraries allocate once is not the micro-batch's
    peaks = passes.peak_bytes(few), passes.peak_bytes(many)
    if math.inf in peaks or few == many:
        return execution.micro_batch, "are estimated to fit"
    capacity = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    available = _SHARE_OF_MEMORY * capacity - kept_bytes
    fitting = rows_that_fit((few, peaks[0]), (many, peaks[1]), available)
    limit = int(ranks.smallest(min(fitting, step_rows)))
    row_bytes = (peaks[1] - peaks[0]) / (many - few)
    return limit, f"fit {available / 1e9:,.1f} GB, at {row_bytes / 1e6:,.1f} MB a row"


@final
@dataclass(frozen=True)
class _Passes:
    """Forward and backward passes over the first of some rows, which all ranks make together."""

    forward: nn.Module
    inputs: Tensor
    targets: Tensor
    dropout_seeds: Tensor
    precision: PrecisionName
    ranks: Ranks

    @property
    def device(self) -> torch.device:
        return self.inputs.device

    def seconds(self, count: int) -> float:
        """By the first rank's clock; infinite if memory ran out on some rank."""
        began = time.perf_counter()
        lacking = not self._pass(count)
        seconds = time.perf_counter() - began
        return math.inf if self.ranks.any(lacking) else self.ranks.of_first(seconds)[0]

    def peak_bytes(self, count: int) -> float:
        """The most that was allocated on this rank; infinite on all if memory ran out on some."""
        torch.cuda.reset_peak_memory_stats(self.device)
        seconds = self.seconds(count)
        return math.inf if seconds == math.inf else torch.cuda.max_memory_allocated(self.device)

    def _pass(self, count: int) -> bool:
        """Whether memory sufficed."""
        try:
            with autocast(self.device, self.precision):
                loss = self.forward(self.inputs[:count], self.targets[:count], self.dropout_seeds[:count])
            loss.backward()
            loss.item()  # waits for the device
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            self.forward.zero_grad(set_to_none=True)
        return True
