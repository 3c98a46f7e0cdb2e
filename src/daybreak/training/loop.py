"""The training loop: `train` reads like the algorithm, and is given its parts ready-made."""

import math
import time
from collections.abc import Mapping
from dataclasses import astuple, replace

import torch

from daybreak.checkpoint import Tensors, restore
from daybreak.distributed import synchronise_gradients
from daybreak.errors import UserError
from daybreak.evaluate.in_training import TaskEvaluation
from daybreak.evaluate.loss import Loss
from daybreak.hardware import autocast, is_out_of_memory
from daybreak.progress import say
from daybreak.training.budget import Moment
from daybreak.training.diagnostics import copied_matrices, update_sizes
from daybreak.training.growth import StepSize
from daybreak.training.microbatch import halve_micro_batch
from daybreak.training.optimizer import set_learning_rates, set_momentum, unscale_and_clip
from daybreak.training.parts import Parts
from daybreak.training.recovery import require_a_good_step, roll_back
from daybreak.training.schedule import is_before_decay, learning_rate_share
from daybreak.training.spent import Spent, is_due
from daybreak.training.state import State


def train(parts: Parts, spent: Spent, *, owes_validation: bool = False) -> tuple[Spent, Loss | None]:
    """Train from `spent` on until the budget is spent or a stop is requested; then save.

    Args:
        owes_validation: the last sitting was stopped inside an evaluation.

    Returns:
        What the run has spent now, and its validation loss; None if it was stopped before its end.
    """
    model, optimizers = parts.model, parts.optimizers
    validation = _evaluate(parts, spent) if owes_validation else None
    if validation is not None:
        owes_validation = False
        _save(parts, spent, validation, owes_validation=False)

    foreseen = spent
    while not parts.standstill.ends_run() and (moment := _next_moment(parts, spent)) is not None:
        before_decay = (spent.before_decay or not spent.steps) and is_before_decay(parts.schedule, moment)
        if spent.before_decay and not before_decay:  # a run may be extended from here
            _save(parts, spent, validation, pinned=True, owes_validation=owes_validation)

        began = time.perf_counter()
        lr_share = learning_rate_share(parts.schedule, moment)
        set_learning_rates(optimizers, lr_share)
        set_momentum(optimizers, parts.optimization, moment)

        gradient = _gradient(parts, spent, moment.size)
        if gradient is None:  # stopped inside the step, which the next sitting begins anew
            break
        total_nll, targets = gradient
        loss = total_nll / targets
        norm = unscale_and_clip(model, parts.optimization.clip, scale=parts.guard.scale * targets / moment.size.tokens)
        verdict = parts.guard.judge(loss, norm)
        seen, foreseen = foreseen, moment.foreseen(spent)
        looks_inside = verdict == "good" and is_due(parts.diagnostics.every, seen, foreseen)
        before_update = copied_matrices(model, parts.ranks) if looks_inside else None
        if verdict == "good":
            for optimizer in optimizers:
                optimizer.step()
        elif verdict == "spike":
            roll_back(parts, spent, loss)
        else:
            require_a_good_step(parts)
        model.zero_grad(set_to_none=True)

        seconds = time.perf_counter() - began
        before, spent = spent, replace(_spent_after(parts, spent, moment.size, seconds), before_decay=before_decay)
        _log_step(parts, moment, spent, loss=loss, lr_share=lr_share, norm=norm, seconds=seconds)
        if before_update is not None:
            _look_inside(parts, spent, before_update)

        validates = is_due(parts.validation.every, before, spent) and _affords_evaluation(parts, spent)
        validation = _evaluate(parts, spent) if validates else None
        owes_validation = validates and validation is None
        if parts.standstill.ends_run():
            break
        if is_due(parts.sampler.every, before, spent):
            _sample(parts, spent)
        if parts.tasks is not None and is_due(parts.tasks.every, before, spent):
            _evaluate_tasks(parts, parts.tasks, spent)
        pinned = is_due(parts.checkpoints.config.keep_every, before, spent)
        if (
            pinned
            or verdict == "spike"  # so that a crash does not lead back to it
            or is_due(parts.checkpoints.config.every, before, spent)
            or _is_best(parts, validation)
        ):
            _save(parts, spent, validation, pinned=pinned, owes_validation=owes_validation)

    went_back = False
    if _allows_another_step(parts, spent) and not parts.standstill.ends_run():  # stopped before its end
        validation = None
    elif validation is None:
        validation = _evaluate(parts, spent)
    if validation is not None and parts.standstill.config is not None:
        went_back = _go_back_to_lowest(parts, spent, validation)
        validation = _evaluate(parts, spent) if went_back else validation
    _save(parts, spent, validation, owes_validation=owes_validation, anew=went_back)
    return spent, validation


def _next_moment(parts: Parts, spent: Spent) -> Moment | None:
    """Where the next step stands, by the first rank's clock; None if none is to come, or a stop was asked for."""
    parts.ranks.enter(f"step {spent.steps + 1}")
    if parts.ranks.any(parts.stop.requested) or not _allows_another_step(parts, spent):
        return None
    moment = parts.budget.moment(spent)
    progress, share, steps_total, windows, tokens, length, flops = parts.ranks.of_first(
        moment.progress, moment.share, moment.steps_total, *astuple(moment.size)
    )
    size = StepSize(int(windows), int(tokens), int(length), flops)
    return replace(moment, progress=progress, share=share, size=size, steps_total=steps_total)


def _spent_after(parts: Parts, spent: Spent, size: StepSize, seconds: float) -> Spent:
    """What is spent once a step is done, by the first rank's clock."""
    ranks = parts.ranks
    seconds, elapsed = ranks.of_first(seconds, parts.clock.elapsed())
    after = parts.budget.after_step(spent, size, seconds=seconds, elapsed=elapsed)
    (progress,) = ranks.of_first(after.progress)
    return replace(after, progress=progress)


def _allows_another_step(parts: Parts, spent: Spent) -> bool:
    return bool(parts.ranks.of_first(parts.budget.allows_another_step(spent))[0])


def _gradient(parts: Parts, spent: Spent, size: StepSize) -> tuple[float, float] | None:
    """As `_accumulate`; where memory runs out, again with half the micro-batch, which is the same step."""
    while True:
        try:
            return _accumulate(parts, spent, size)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        parts.model.zero_grad(set_to_none=True)
        half = halve_micro_batch(parts.batches, parts.device, parts.ranks.count)
        line = f"warning: {parts.device} ran out of memory in step {spent.steps + 1:,}; on with {half} rows at once"
        parts.metrics.event("micro_batch", {"step": spent.steps, "micro_batch": half}, line)


def _accumulate(parts: Parts, spent: Spent, size: StepSize) -> tuple[float, float] | None:
    """Leave the gradient of the step's mean loss, times the guard's scale, on every rank.

    Returns:
        The step's sum of losses and its number of targets, over all ranks; None if a stop was asked for.
    """
    batches, ranks = parts.batches, parts.ranks
    # How many targets the step counts is known behind its last row: divide by the nominal number, mend when unscaling.
    # A rank divides by its share of it, since gradients are averaged over ranks.
    nominal, targets = size.tokens / ranks.count, 0
    total_nll = torch.zeros((), device=parts.device)
    for rows in batches.step(spent.windows, windows=size.windows, length=size.length):
        if ranks.any(parts.stop.requested):
            return None
        synchronise_gradients(parts.forward, now=rows.last)
        with autocast(parts.device, parts.precision):
            nll = parts.forward(rows.inputs, rows.targets, rows.dropout_seeds)
        (nll * (parts.guard.scale / nominal)).backward()
        total_nll += nll.detach()
        targets += rows.counted
    total, counted = ranks.sums([total_nll.item(), targets])
    return total, counted


def _log_step(
    parts: Parts, moment: Moment, spent: Spent, *, loss: float, lr_share: float, norm: float, seconds: float
) -> None:
    size = moment.size
    mfu = None if parts.peak_flops is None else size.flops / seconds / parts.peak_flops
    record = {
        "step": spent.steps,
        "tokens": spent.tokens,
        "flops": spent.flops,
        "batch_tokens": size.tokens,
        "length": size.length,
        "loss": loss,
        "lr": lr_share * parts.optimization.lr,
        "gradient_norm": norm,
        "milliseconds": 1000 * seconds,
        "tokens_per_second": size.tokens / seconds,
        "mfu": mfu,
        "elapsed_seconds": spent.elapsed_seconds,
        "progress": moment.progress,
        "progress_share": moment.share,
        "skipped": parts.guard.skipped,
    }
    parts.outlook.note_step(moment, lr_share, loss)
    parts.metrics.step(record)
    if parts.metrics.shows_now():
        parts.metrics.show(record, parts.outlook.after(moment, spent))


def _affords_evaluation(parts: Parts, spent: Spent) -> bool:
    """Whether there is time for an evaluation before the last one; the first rank's clock says so."""
    affords = bool(parts.ranks.of_first(parts.budget.affords_evaluation(spent))[0])
    if not affords and parts.budget.allows_another_step(spent):
        say(f"step {spent.steps:>6,}  no validation: it would take more than half of the time that is left to train")
    return affords


def _evaluate(parts: Parts, spent: Spent) -> Loss | None:
    """The validation loss; None if a stop was asked for meanwhile."""
    parts.ranks.enter(f"evaluation after step {spent.steps}")
    began = time.perf_counter()
    result = parts.validation.measure(parts.model, ranks=parts.ranks, interrupted=lambda: parts.stop.requested)
    if result is None:
        return None
    seconds = time.perf_counter() - began
    again = 1 if parts.standstill.config is None else 2  # of the weights that the run goes back to at its end
    parts.budget.note_ending("evaluation", again * seconds)
    parts.standstill.note(result.loss)
    parts.outlook.note_validation(result.loss)
    record = {
        "step": spent.steps,
        "tokens": spent.tokens,
        "elapsed_seconds": parts.clock.elapsed(),
        **result.figures,
        "seconds": seconds,
    }
    line = f"step {spent.steps:>6,}  validation loss {result.loss:.4f}  {result.bits_per_byte:.4f} bits a byte"
    parts.metrics.event("validation", record, line)
    return result


def _sample(parts: Parts, spent: Spent) -> None:
    parts.ranks.enter(f"sampling after step {spent.steps}")
    began = time.perf_counter()
    # A compiled block would meet a new shape at every token.
    with torch.compiler.set_stance("force_eager"), autocast(parts.device, parts.precision):
        try:
            text = parts.sampler.draw(parts.model)
        except UserError as error:  # a model that has diverged says nothing, but its run goes on
            text = f"({error})"
    parts.budget.note_ending("sample", time.perf_counter() - began)
    parts.metrics.event("sample", {"step": spent.steps, "text": text}, f"step {spent.steps:>6,}  sample: {text}")


def _evaluate_tasks(parts: Parts, tasks: TaskEvaluation, spent: Spent) -> None:
    """Measure benchmarks; where a stop was asked for meanwhile, there are none of this step."""
    parts.ranks.enter(f"tasks after step {spent.steps}")
    began = time.perf_counter()
    missing = "a stop was asked for"
    try:
        with torch.compiler.set_stance("force_eager"):  # a compiled block would meet a new shape at every batch
            results = tasks.measure(
                parts.model, parts.precision, ranks=parts.ranks, interrupted=lambda: parts.stop.requested
            )
    except UserError as error:  # a model that has diverged may answer nothing, but its run goes on
        results, missing = None, str(error)
    if results is None:
        line = f"step {spent.steps:>6,}  no tasks: {missing}"
        parts.metrics.event("missing_tasks", {"step": spent.steps, "why": missing}, line)
        return
    seconds = time.perf_counter() - began
    parts.budget.note_ending("tasks", seconds)
    record = {
        "step": spent.steps,
        "tokens": spent.tokens,
        "elapsed_seconds": parts.clock.elapsed(),
        "seconds": seconds,
        "results": {task.name: task.recorded() for task in results.tasks},
    }
    lines = "; ".join(task.line() for task in results.tasks if not task.member)
    parts.metrics.event("tasks", record, f"step {spent.steps:>6,}  {lines}")


def _look_inside(parts: Parts, spent: Spent, before_update: Mapping[str, torch.Tensor]) -> None:
    parts.ranks.enter(f"diagnostics after step {spent.steps}")
    record = {
        "step": spent.steps,
        "tokens": spent.tokens,
        "update_size": update_sizes(parts.model, before_update, parts.ranks),
        "largest_logit": parts.diagnostics.largest_logits(parts.model),
    }
    parts.metrics.event("layers", record, "")


def _is_best(parts: Parts, validation: Loss | None) -> bool:
    if validation is None or not parts.checkpoints.config.keep_best:
        return False
    lowest = parts.checkpoints.lowest_loss() if parts.ranks.first else 0.0
    return validation.loss < parts.ranks.of_first(lowest)[0]


def _go_back_to_lowest(parts: Parts, spent: Spent, validation: Loss) -> bool:
    """Weights and optimizer as they were where the validation loss was lowest; False if that is here."""
    best = parts.checkpoints.best() if parts.ranks.first else None
    there = (math.inf, 0) if best is None or best.validation_loss is None else (best.validation_loss, best.step)
    lowest, step = parts.ranks.of_first(*there)
    if not lowest < validation.loss:
        return False
    restore(best, parts.model, parts.optimizers, parts.ranks)
    line = f"back to step {step:,.0f}, where the validation loss was lowest: {lowest:.4f}"
    parts.metrics.event("lowest", {"step": spent.steps, "loss": lowest, "back_to": int(step)}, line)
    return True


def _save(
    parts: Parts,
    spent: Spent,
    validation: Loss | None,
    *,
    owes_validation: bool,
    pinned: bool = False,
    anew: bool = False,
) -> None:
    parts.ranks.enter(f"saving step {spent.steps}")
    began = time.perf_counter()
    tensors = Tensors.of(parts.model, parts.optimizers, parts.ranks)
    if not parts.ranks.first:
        return
    state = State.of(
        spent, parts.guard, parts.batches.micro_batch, owes_validation=owes_validation, standstill=parts.standstill
    )
    loss = validation.loss if validation is not None and math.isfinite(validation.loss) else None
    parts.checkpoints.save(spent.steps, tensors, state.to_json(), pinned=pinned, validation_loss=loss, anew=anew)
    parts.budget.note_ending("save", max(time.perf_counter() - began, parts.checkpoints.seconds))
