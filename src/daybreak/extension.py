"""A larger budget for a run: a new run that goes on from where the decay of the old one began.

As warm-up, plateau and decay allow (Hu et al. 2024, MiniCPM): the plateau is the same for every budget, so what was
trained on it is not trained again, and only the decay is.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from daybreak.checkpoint import Checkpoint, Tensors, list_checkpoints, open_checkpoint
from daybreak.compose import build_budget
from daybreak.data.reading import Reading
from daybreak.distributed import launched_ranks
from daybreak.duration import Duration, Unit
from daybreak.errors import UserError
from daybreak.files import whole_folder
from daybreak.folders import is_a, is_no
from daybreak.identity import changes_to, origin_of, read_execution, read_recipe, write_execution, write_identity
from daybreak.progress import say
from daybreak.recipe import Recipe, merge
from daybreak.run import Run, train
from daybreak.saving import CheckpointConfig, Checkpoints
from daybreak.training.budget import Clock
from daybreak.training.metrics import Metrics, copy_metrics, read_metrics
from daybreak.training.signals import stop_seconds
from daybreak.training.state import State

# Of phases that a run is in, or has behind it. In shares of a larger budget they would come once more.
_PHASES = (("schedule", "warmup"), ("curriculum", "stage"), ("batch", "ramp", "over"), ("optimizer", "momentum_warmup"))
_BUDGET = ("budget", "price")


def extend(
    run: Path | str,
    *overrides: str,
    data: Path | str | None = None,
    out: Path | str | None = None,
    started: float | None = None,
    stop_after: str | None = None,
) -> Run:
    """Train a run on with a larger budget, in a folder of its own; called again, it goes on where it stopped.

    What the run had spent until its learning rate began to fall counts: an extension to 48 hours is what 48 hours would
    have come to.

    Args:
        overrides: the new budget, as `budget=48h`, its price, and settings that change nothing of what is computed.
        data: where the run's corpus lies now, or those of its mixture; where they lay unless given.
        out: the new run's folder; beside the old one, with the budget behind its name, unless given.
        started: as of `train`.
        stop_after: as of `train`.

    Raises:
        UserError: the run's schedule has no plateau, the budget is hardly larger, or several ranks were launched.
    """
    if launched_ranks() > 1:
        raise UserError(
            "begin an extension with one process, as `daybreak extend … --out FOLDER --stop-after 1s`; torchrun "
            "goes on with it: -m daybreak train FOLDER/recipe.toml --out FOLDER"
        )
    started = time.monotonic() if started is None else started
    stop_seconds(stop_after)  # a mistake in it is said before anything is written
    run = Path(run)
    if not is_a("run", run):
        raise is_no(run, "run")
    asked = Recipe.load(run / "recipe.toml", *overrides)
    asked = asked if data is None else asked.with_data(data)
    reading = Reading.open(asked.data)
    asked = asked.model_copy(update={"data": reading.placed})
    beside = run if run.name not in ("", "..") else run.resolve()
    folder = Path(out) if out is not None else beside.with_name(f"{beside.name}-{str(asked.budget).replace(' ', '-')}")
    recipe = _begin(run, asked, reading, folder, started)
    return train(recipe, out=folder, started=started, stop_after=stop_after)


def _begin(run: Path, asked: Recipe, reading: Reading, out: Path, started: float) -> Recipe:
    """Make the new run's folder, unless it is there; returns the recipe to train in it."""
    before = read_recipe(run)
    _require_only_a_budget(run, asked, reading)
    if (out / "recipe.toml").exists():
        return _begun_before(out, asked)
    checkpoint, state = _before_decay(run, before)
    spent = state.spent
    clock = Clock(started, before=spent.elapsed_seconds + _seconds_to_start(run))
    budget = build_budget(asked, reading.pass_windows, clock)
    progress = budget.progress(replace(spent, progress=0.0))
    if progress >= spent.progress:
        again = "" if asked.budget_seconds is None else ", without the time that another start takes"
        raise UserError(f"budget = {asked.budget} is no more than the {before.budget} that {run} had{again}")
    scale = progress / spent.progress
    extended = _with_phases(asked, {path: _scaled(asked, path, scale) for path in _PHASES})
    state = replace(state, spent=replace(spent, progress=progress))
    _write(run, out, extended, reading, checkpoint, state, scale)
    say(f"{out} goes on from step {checkpoint.step:,} of {run}, at {progress:.1%} of {asked.budget}")
    return extended


def _require_only_a_budget(run: Path, asked: Recipe, reading: Reading) -> None:
    changes = changes_to(run, asked, reading)
    keys = {line.split(":")[0] for line in changes.all}
    others = [line for line in changes.fixed + changes.course if line.split(":")[0] not in _BUDGET]
    if others:
        shown = "".join(f"\n  {line}" for line in others)
        raise UserError(f"an extension changes the budget alone; these would make it another run:{shown}")
    if "budget" not in keys:
        raise UserError(f"give {run} a larger budget than its {asked.budget}, as budget=48h")


def _begun_before(out: Path, asked: Recipe) -> Recipe:
    """The recipe of an extension that is to go on.

    Raises:
        UserError: what lies there is something else.
    """
    begun = read_recipe(out)
    same = _with_phases(asked, {path: _at(begun.model_dump(mode="json"), path) for path in _PHASES})
    if (same.fingerprint, same.budget, same.price) != (begun.fingerprint, begun.budget, begun.price):
        raise UserError(f"{out} holds another run; choose another --out")
    return same


def _before_decay(run: Path, recipe: Recipe) -> tuple[Checkpoint, State]:
    """The newest valid checkpoint before which no learning rate was lowered.

    Raises:
        UserError: there is none, or the schedule lowers it from the start.
    """
    if recipe.schedule.kind not in ("wsd", "constant"):
        raise UserError(
            f"{run} cannot be extended: its schedule, {recipe.schedule.kind}, lowers the learning rate by the share of "
            "the budget that is spent, so that with a larger one every step would have been another; train anew, with "
            "schedule.kind=wsd if more is to follow"
        )
    for path in reversed(list_checkpoints(run / "checkpoints")):
        try:
            checkpoint = open_checkpoint(path)
            state = State.read(checkpoint)
        except UserError as error:
            say(f"warning: {error}; trying the checkpoint before it")
            continue
        if state.spent.before_decay:
            return checkpoint, state
    raise UserError(f"{run} has no checkpoint from before its learning rate fell; train anew with the larger budget")


def _seconds_to_start(run: Path) -> float:
    """What the run's first step waited for, which the extension's will wait for again."""
    first = next(iter(read_metrics(run / "metrics.jsonl", "train")), None)
    return 0.0 if first is None else max(0.0, first["elapsed_seconds"] - first["milliseconds"] / 1000)


def _scaled(recipe: Recipe, path: tuple[str, ...], factor: float) -> str | None:
    """A phase's duration, at the place in the run where it was; one that is no share of the budget is there anyway."""
    text = _at(recipe.model_dump(mode="json"), path)
    if text is None:
        return None
    duration = Duration.parse(text)
    return str(replace(duration, amount=duration.amount * factor) if duration.unit is Unit.PERCENT else duration)


def _with_phases(recipe: Recipe, durations: Mapping[tuple[str, ...], str | None]) -> Recipe:
    content = recipe.model_dump(mode="json")
    for path, duration in durations.items():
        if duration is not None:
            layer: Any = duration
            for key in reversed(path):
                layer = {key: layer}
            content = merge(content, layer)
    return Recipe.model_validate(content)


def _at(content: Any, path: tuple[str, ...]) -> Any:
    """The value at a path of keys; None if there is none."""
    for key in path:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def _write(
    run: Path, out: Path, recipe: Recipe, reading: Reading, checkpoint: Checkpoint, state: State, scale: float
) -> None:
    """The whole folder of the new run, or nothing.

    Args:
        scale: of shares of the old budget to those of the new.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UserError(f"{out} exists and is no extension of {run}; choose another --out")
    with whole_folder(out) as aside:
        write_identity(aside, recipe, reading, origin_of(run))
        write_execution(aside, read_execution(run))
        copy_metrics(run / "metrics.jsonl", aside / "metrics.jsonl", up_to_step=checkpoint.step, scale=scale)
        event = {"step": checkpoint.step, "run": str(run.resolve()), "budget": str(recipe.budget)}
        Metrics(aside / "metrics.jsonl", attempt=1).event("extension", event, "")
        with Checkpoints(aside / "checkpoints", CheckpointConfig()) as checkpoints:
            tensors = Tensors(checkpoint.weights(), checkpoint.moments())
            loss = checkpoint.validation_loss
            checkpoints.save(checkpoint.step, tensors, state.to_json(), validation_loss=loss)
