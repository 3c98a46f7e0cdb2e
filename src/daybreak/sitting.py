"""One sitting of a run: from what its folder holds to the loop, until the budget is spent or a stop is asked for."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from daybreak.checkpoint import Checkpoint, checkpoint_path, open_latest, restore
from daybreak.compose import (
    build_batches,
    build_budget,
    build_diagnostics,
    build_learner,
    build_validation,
    choose_execution,
    execution_again,
    probed,
    summary,
)
from daybreak.data.reading import Reading
from daybreak.distributed import Ranks, forward_of
from daybreak.errors import Stopped, UserError
from daybreak.evaluate.in_training import TaskEvaluation
from daybreak.files import locked, write_json
from daybreak.finite import finite
from daybreak.hardware import is_busy, peak_flops
from daybreak.identity import (
    changes_to,
    origin_of,
    read_execution,
    read_recipe,
    read_result,
    write_execution,
    write_identity,
    write_result,
)
from daybreak.origin import begin_from
from daybreak.progress import say
from daybreak.published import published
from daybreak.recipe import Recipe
from daybreak.sampling.sampler import Sampler
from daybreak.saving import Checkpoints, sweep
from daybreak.training import loop
from daybreak.training.budget import Clock, TimeBudget
from daybreak.training.early_stopping import Standstill
from daybreak.training.execution import Execution, threads_restored
from daybreak.training.forecast import CurveLaw, Forecast
from daybreak.training.guard import make_guard
from daybreak.training.metrics import Metrics, read_metrics, read_progress
from daybreak.training.optimizer import MuonConfig, muon_momentum
from daybreak.training.outlook import Outlook, remembered
from daybreak.training.parts import Parts
from daybreak.training.schedule import check_schedule
from daybreak.training.shortfall import warn_of_an_end, warn_of_few_steps
from daybreak.training.signals import StopRequest
from daybreak.training.spent import Spent
from daybreak.training.state import State
from daybreak.training.tracking import NO_TRACKING, Tracking, require_installed, start_tracking
from daybreak.warm_up import warmed_up


@final
@dataclass(frozen=True)
class Sitting:
    """What a sitting is about.

    Attributes:
        path: the run's folder; only the first rank reads and writes it.
        accept_changes: go on with settings that change what is computed from here on.
    """

    path: Path
    recipe: Recipe
    reading: Reading
    clock: Clock
    stop: StopRequest
    ranks: Ranks
    accept_changes: bool


@final
@dataclass(frozen=True)
class Outcome:
    """What a run came to at the end of a sitting, known to every rank."""

    execution: Execution
    checkpoint: Checkpoint
    result: Mapping[str, Any] | None


@final
@dataclass(frozen=True)
class Assembled:
    """A run that is ready to train.

    Attributes:
        execution: as it turned out.
        spent: where it goes on from.
        owes_validation: the last sitting was stopped inside an evaluation.
    """

    execution: Execution
    parts: Parts
    spent: Spent
    owes_validation: bool


@final
@dataclass(frozen=True)
class _Beginning:
    """What the first rank finds in a run's folder.

    Attributes:
        checkpoint: the newest valid one, if there is any.
        recorded: training records of earlier sittings.
        differences: settings that are not as they were.
        goes_on: the folder holds this very run.
        finished: and its budget is spent.
    """

    checkpoint: Checkpoint | None
    recorded: list[dict[str, Any]]
    differences: tuple[str, ...]
    goes_on: bool
    finished: bool


def sit(sitting: Sitting) -> Outcome:
    """Begin a run, or go on with it, until its budget is spent or a stop is asked for.

    Raises:
        UserError: the folder is in use, or holds a run that the recipe may not go on with.
    """
    first = sitting.ranks.first
    with threads_restored(), locked(sitting.path) if first else nullcontext():
        with sitting.stop.at_once():
            found = _look(sitting) if first else None
            execution, state, finished, fresh = _share(sitting, found)
        if finished and state is not None:
            say(f"{sitting.path} is finished; choose another --out to train again")
            return Outcome(execution, _as_saved(sitting, state), {"validation": {"loss": None}})
        return _train(sitting, found, execution, state, fresh=fresh)


def _look(sitting: Sitting) -> _Beginning:
    """Read a run's folder.

    Raises:
        UserError: it holds checkpoints of a run that the recipe may not go on with, or what goes with them is damaged.
    """
    path = sitting.path
    require_installed(sitting.recipe.tracking)
    sweep(path / "checkpoints")
    checkpoint = open_latest(path / "checkpoints")
    if checkpoint is None and not (path / "recipe.toml").exists():
        return _Beginning(None, [], (), goes_on=False, finished=False)
    changes = changes_to(path, sitting.recipe, sitting.reading)
    if checkpoint is None:  # nothing can be lost
        goes_on, recorded = not changes.all, read_progress(path / "metrics.jsonl")
        if recorded:
            say(f"warning: {path} was trained before, but has no checkpoint; beginning anew")
        return _Beginning(None, recorded if goes_on else [], (), goes_on, finished=False)
    shown = "".join(f"\n  {line}" for line in changes.all)
    finished = read_result(path, checkpoint) is not None
    if finished and (changes.fixed or changes.course):
        raise UserError(
            f"{path} holds a finished run with other settings; choose another --out, or, where only the budget grows, "
            f"`daybreak extend {path} budget=…`:{shown}"
        )
    if changes.fixed:
        fixed = "".join(f"\n  {line}" for line in changes.fixed)
        raise UserError(f"{path} holds a run with other settings, which cannot change; choose another --out:{fixed}")
    if changes.course and not sitting.accept_changes:
        raise UserError(
            f"{path} holds a run with other settings; give the same, choose another --out, or go on from step "
            f"{checkpoint.step:,} with --accept-changes:{shown}"
        )
    if changes.all and not finished:
        say(f"{path} goes on with other settings:{shown}")
    return _Beginning(checkpoint, read_progress(path / "metrics.jsonl"), changes.all, goes_on=True, finished=finished)


def _share(sitting: Sitting, found: _Beginning | None) -> tuple[Execution, State | None, bool, bool]:
    """What the first rank found, on every rank.

    Returns:
        How to execute; the state to go on from; whether all is done; whether the execution was chosen just now.
    """

    path, recipe, ranks = sitting.path, sitting.recipe, sitting.ranks

    def described() -> dict[str, Any]:
        assert found is not None
        state = None if found.checkpoint is None else State.read(found.checkpoint)
        again = found.goes_on and (path / "execution.json").exists()
        if again:
            micro_batch = None if state is None else state.micro_batch
            before = read_recipe(path).execution
            execution = execution_again(read_execution(path), micro_batch, before, recipe, ranks)
        else:
            if found.checkpoint is not None:
                say(f"warning: {path / 'execution.json'} is missing; choosing anew, last digits may differ")
            execution = choose_execution(recipe, ranks)
        return {
            "execution": execution.model_dump(mode="json"),
            "state": None if state is None else state.to_json(),
            "finished": found.finished,
            "fresh": not again,
        }

    shared = ranks.share(described)
    state = None if shared["state"] is None else State.from_json(shared["state"], "the first rank's state")
    return Execution.model_validate(shared["execution"]), state, shared["finished"], shared["fresh"]


def _train(
    sitting: Sitting, found: _Beginning | None, execution: Execution, state: State | None, *, fresh: bool
) -> Outcome:
    """Put the parts together, train, and write what the run came to.

    Args:
        found: on the first rank alone.
        state: of the checkpoint to go on from, if there is one.
        fresh: the execution was chosen just now, by estimate.
    """
    with assembled(sitting, execution, found, state, fresh=fresh) as ready:
        execution, parts = ready.execution, ready.parts
        spent, validation = loop.train(parts, ready.spent, owes_validation=ready.owes_validation)
    state = State.of(spent, parts.guard, parts.batches.micro_batch, owes_validation=False, standstill=parts.standstill)
    if validation is None:
        return Outcome(execution, _as_saved(sitting, state), None)
    measured = {**validation.figures, "tokens": validation.tokens, "bytes": validation.bytes}
    result = {"validation": finite(measured)}
    if sitting.ranks.first:
        if isinstance(parts.budget, TimeBudget) and not parts.standstill.ends_run():
            warn_of_an_end(parts.budget, spent, sitting.clock)
        write_result(sitting.path, {"spent": asdict(spent), **result})
    return Outcome(execution, _as_saved(sitting, state), result)


@contextmanager
def assembled(
    sitting: Sitting,
    execution: Execution,
    found: _Beginning | None = None,
    state: State | None = None,
    *,
    fresh: bool = False,
) -> Iterator[Assembled]:
    """The parts of a run, compiled and warm. Without `found`, nothing is written but metrics and checkpoints.

    Args:
        state: of the checkpoint to go on from; without one the run begins, from a trained model if the recipe says so.
        fresh: the execution was chosen just now, by estimate; a faster micro-batch may be found by measuring.

    Raises:
        UserError: it does not fit into memory, or its budget is spent before the first step.
    """
    recipe, reading, clock, ranks = sitting.recipe, sitting.reading, sitting.clock, sitting.ranks
    recorded = found.recorded if found is not None else []
    # Work that was lost counts: it was paid for. Downtime does not.
    clock.before = max((float(record["elapsed_seconds"]) for record in recorded), default=0.0)
    device = execution.apply(ranks.local_rank if ranks.count > 1 else None)
    batches = build_batches(recipe, execution, reading, device, ranks)
    planned = build_budget(recipe, batches.windows, clock)
    check_schedule(recipe.schedule, planned.moment(Spent()))
    if isinstance(recipe.optimizer, MuonConfig):  # a warm-up that cannot be counted is said now
        muon_momentum(recipe.optimizer, planned.moment(Spent()))
    tasks = TaskEvaluation.of(recipe.tasks, reading.tokenizer)  # a task that is not there is said now
    separator = recipe.data.separator(reading.tokenizer)
    model, optimizers = build_learner(recipe, execution, device, ranks, separator)
    guard, spent, owes_validation = make_guard(recipe.guard, execution.precision), Spent(), False
    standstill = Standstill(recipe.early_stop)
    origin = None
    if state is None:
        origin = begin_from(recipe.init, recipe.model, recipe.seed, reading.tokenizer, model, ranks)
    else:
        restore(found.checkpoint if found is not None else None, model, optimizers, ranks)
        guard, spent, owes_validation = guard.resumed(state.guard), state.spent, state.owes_validation
        standstill = Standstill(recipe.early_stop, state.standstill)
        clock.before = max(clock.before, spent.elapsed_seconds)
        say(f"going on from step {spent.steps:,} of {sitting.path}")
    forward = forward_of(model, recipe.parallel, ranks)
    step_seconds = 0.0
    try:
        # Several ranks compile and warm up together or not at all: there a request waits until they have.
        with sitting.stop.at_once() if ranks.count == 1 else nullcontext():
            if fresh:
                execution = probed(recipe, execution, planned, forward, batches, ranks)
                batches.micro_batch = execution.micro_batch
            execution, step_seconds = warmed_up(recipe, execution, model, forward, batches, spent, planned.rates, ranks)
    except Stopped:
        pass  # the loop begins no step, and saves what there is
    same_course = found is None or not found.differences
    budget = build_budget(recipe, batches.windows, clock, recorded if same_course else (), step_seconds)
    begins = sitting.stop.requested or spent.steps > 0 or budget.allows_another_step(spent)
    if not ranks.of_first(begins)[0]:
        raise UserError(
            f"budget = {recipe.budget} is spent before the first step: starting took {clock.elapsed():.1f} s; "
            "give it a larger one"
        )
    validation_part = build_validation(recipe, execution, reading, device, sample=recipe.evaluation.tokens)
    reading.tokenizer.encode(recipe.samples.prompt)  # a character it lacks is said now, not at the first sample
    if found is not None:
        _write_beginning(sitting, execution, found, origin)
        say(summary(sitting.path, recipe, budget, execution, device, ranks))
        if spent.steps == 0 and origin is None:
            warn_of_few_steps(budget, step_seconds)
        if device.type == "cpu" and execution.threads > 1 and is_busy():
            say("warning: this machine was busy in the last minute; if it still is, execution.threads=1 is faster")

    validations = read_metrics(sitting.path / "metrics.jsonl", "validation") if recorded else []
    forecast = None  # its curve is that of a training from random values
    if recipe.init is None:
        forecast = remembered(Forecast(CurveLaw.fitted()), recorded, validations, spent, recipe.optimizer.lr)
    tracking = _tracking(sitting, spent, recorded) if found is not None and ranks.first else NO_TRACKING
    samples = recipe.samples
    attempt = 1 + max((record["attempt"] for record in recorded), default=0)
    peak = peak_flops(device, execution.precision)
    keeping = recipe.checkpoint
    if recipe.early_stop is not None:  # what it ends with
        keeping = keeping.model_copy(update={"keep_best": True})
    with (
        Checkpoints(sitting.path / "checkpoints", keeping) as checkpoints,
        Metrics(sitting.path / "metrics.jsonl" if ranks.first else None, attempt, tracking) as metrics,
        closing(batches),
    ):
        if found is not None and found.differences:
            metrics.event("changes", {"step": spent.steps, "settings": list(found.differences)}, "")
        parts = Parts(
            model=model,
            forward=forward,
            optimizers=optimizers,
            batches=batches,
            budget=budget,
            outlook=Outlook(budget, recipe.schedule, recipe.price, forecast),
            schedule=recipe.schedule,
            optimization=recipe.optimizer,
            guard=guard,
            standstill=standstill,
            validation=validation_part,
            diagnostics=build_diagnostics(recipe, execution, validation_part),
            sampler=Sampler(samples.every, reading.tokenizer, samples.prompt, samples.tokens, samples.sampling),
            tasks=tasks,
            checkpoints=checkpoints,
            metrics=metrics,
            ranks=ranks,
            stop=sitting.stop,
            clock=clock,
            device=device,
            precision=execution.precision,
            peak_flops=None if peak is None else peak * ranks.count,
        )
        yield Assembled(execution, parts, spent, owes_validation)


def _tracking(sitting: Sitting, spent: Spent, recorded: Sequence[Mapping[str, Any]]) -> Tracking:
    """The trackers of a run, which are told no path of this machine."""
    recipe, content = sitting.recipe, published(sitting.recipe).model_dump(mode="json")
    tracked = max((record["step"] for record in recorded), default=0)
    return start_tracking(recipe.tracking, sitting.path, content, behind=spent.steps, tracked=tracked)


def _as_saved(sitting: Sitting, state: State) -> Checkpoint:
    """The last checkpoint, as every rank knows it without reading it."""
    return Checkpoint(checkpoint_path(sitting.path / "checkpoints", state.spent.steps), state.to_json())


def _write_beginning(sitting: Sitting, execution: Execution, found: _Beginning, origin: dict[str, Any] | None) -> None:
    """Write what identifies a run, where it is new, begins from a trained model, or goes on with other settings."""
    if not found.goes_on:
        (sitting.path / "metrics.jsonl").unlink(missing_ok=True)
    write_json(sitting.path / "tokenizer.json", sitting.reading.tokenizer.to_json())
    write_execution(sitting.path, execution)  # before the recipe, which says that all before it is written
    if not found.goes_on or found.differences or origin is not None:
        before = origin_of(sitting.path) if found.goes_on else None
        write_identity(sitting.path, sitting.recipe, sitting.reading, origin or before)
