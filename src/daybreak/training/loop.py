"""The training loop: `train` reads like the algorithm, and is given its parts ready-made."""

import time
from dataclasses import asdict, dataclass
from typing import final

import torch

from daybreak.checkpoint import Checkpoints
from daybreak.data.batches import Batches
from daybreak.evaluate.loss import Loss, Validation
from daybreak.hardware import PrecisionName, autocast
from daybreak.model.gpt import GPT
from daybreak.sample import Sampler
from daybreak.training.budget import Budget, Clock, Moment, Spent, is_due
from daybreak.training.guard import Guard
from daybreak.training.metrics import Metrics
from daybreak.training.optimizer import set_learning_rate, unscale_and_clip
from daybreak.training.schedule import Schedule, learning_rate_share
from daybreak.training.signals import StopRequest


@final
@dataclass(frozen=True)
class Parts:
    """What a training run is made of.

    Attributes:
        peak_lr: what the schedule's share is a share of.
        clip: largest norm of the whole gradient; 0 does not clip.
        flops_per_token: for training, forward and backward.
        peak_flops: FLOP/s of the device that utilisation is a share of; None if it is not known.
    """

    model: GPT
    optimizer: torch.optim.Optimizer
    batches: Batches
    budget: Budget
    schedule: Schedule
    peak_lr: float
    clip: float
    guard: Guard
    validation: Validation
    sampler: Sampler
    checkpoints: Checkpoints
    metrics: Metrics
    stop: StopRequest
    clock: Clock
    device: torch.device
    precision: PrecisionName
    flops_per_token: float
    peak_flops: float | None


def train(parts: Parts, spent: Spent) -> tuple[Spent, Loss | None]:
    """Train from `spent` on until the budget is spent or a stop is requested; then save.

    Returns:
        What the run has spent now, and its validation loss; None if it was stopped before its end.
    """
    model, optimizer, batches = parts.model, parts.optimizer, parts.batches
    budget, guard, stop = parts.budget, parts.guard, parts.stop
    validation: Loss | None = None

    while budget.allows_another_step(spent) and not stop.requested:
        began = time.perf_counter()
        moment = budget.moment(spent)
        lr = parts.peak_lr * learning_rate_share(parts.schedule, moment)
        set_learning_rate(optimizer, lr)

        nominal, targets = batches.tokens_per_step, 0
        total_nll = torch.zeros((), device=parts.device)
        for rows in batches.step(spent.windows):
            with autocast(parts.device, parts.precision):
                nll = model(rows.inputs, rows.targets, rows.dropout_seeds)
            # How many targets the step counts is known behind its last row: divide by the nominal number, mend below.
            (nll * (guard.scale / nominal)).backward()
            total_nll += nll.detach()
            targets += rows.counted

        loss = total_nll.item() / targets
        norm = unscale_and_clip(model, parts.clip, scale=guard.scale * targets / nominal).item()
        if guard.accepts(loss, norm):
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        seconds = time.perf_counter() - began
        before, spent = spent, budget.after_step(spent, seconds=seconds, elapsed=parts.clock.elapsed())
        _log_step(parts, moment, spent, loss=loss, lr=lr, norm=norm, seconds=seconds)

        validation = _evaluate(parts, spent) if is_due(parts.validation.every, before, spent) else None
        if is_due(parts.sampler.every, before, spent):
            _sample(parts, spent)
        if is_due(parts.checkpoints.every, before, spent):
            _save(parts, spent)

    if budget.allows_another_step(spent):  # stopped before its end
        validation = None
    elif validation is None:
        validation = _evaluate(parts, spent)
    _save(parts, spent)
    return spent, validation


def _log_step(
    parts: Parts, moment: Moment, spent: Spent, *, loss: float, lr: float, norm: float, seconds: float
) -> None:
    tokens_per_second = parts.batches.tokens_per_step / seconds
    mfu = None if parts.peak_flops is None else tokens_per_second * parts.flops_per_token / parts.peak_flops
    record = {
        "step": spent.steps,
        "tokens": spent.tokens,
        "loss": loss,
        "lr": lr,
        "gradient_norm": norm,
        "milliseconds": 1000 * seconds,
        "tokens_per_second": tokens_per_second,
        "mfu": mfu,
        "elapsed_seconds": spent.elapsed_seconds,
        "progress": moment.progress,
        "progress_share": moment.share,
        "skipped": parts.guard.skipped,
    }
    parts.metrics.step(record, seconds_left=parts.budget.seconds_left(spent))


def _evaluate(parts: Parts, spent: Spent) -> Loss:
    began = time.perf_counter()
    result = parts.validation.measure(parts.model)
    seconds = time.perf_counter() - began
    parts.budget.note_ending(evaluation=seconds)
    record = {
        "step": spent.steps,
        "tokens": spent.tokens,
        "elapsed_seconds": parts.clock.elapsed(),
        "loss": result.loss,
        "bits_per_byte": result.bits_per_byte,
        "seconds": seconds,
    }
    line = f"step {spent.steps:>6,}  validation loss {result.loss:.4f}  {result.bits_per_byte:.4f} bits a byte"
    parts.metrics.event("validation", record, line)
    return result


def _sample(parts: Parts, spent: Spent) -> None:
    began = time.perf_counter()
    # A compiled block would meet a new shape at every token.
    with torch.compiler.set_stance("force_eager"), autocast(parts.device, parts.precision):
        text = parts.sampler.draw(parts.model)
    parts.budget.note_ending(sample=time.perf_counter() - began)
    parts.metrics.event("sample", {"step": spent.steps, "text": text}, f"step {spent.steps:>6,}  sample: {text}")


def _save(parts: Parts, spent: Spent) -> None:
    began = time.perf_counter()
    state = {"spent": asdict(spent), "guard": asdict(parts.guard)}
    parts.checkpoints.save(spent.steps, parts.model, parts.optimizer, state)
    parts.budget.note_ending(save=time.perf_counter() - began)
