"""A study, made trial by trial until all are done or the time is over; the same command goes on.

Seeds are the outer loop, variants the inner one, and who begins moves on with each seed: whatever the machine does in
an hour falls on all variants alike.
"""

import itertools
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch

from daybreak.compose import choose_execution, require_fitting_tokenizer
from daybreak.data.reading import Reading
from daybreak.duration import Duration, Unit, human_seconds
from daybreak.errors import UserError
from daybreak.executor import Workers, available_cores, run_tasks
from daybreak.files import locked, read_sealed, write_sealed
from daybreak.hardware import device_name
from daybreak.progress import say
from daybreak.recipe import Recipe
from daybreak.study.design import Design, Variant, budget_in_steps, variants
from daybreak.study.pace import Pace, measure_paces, require_steady
from daybreak.study.results import FORMAT, PACES, STUDY, TUNED, Study, read_study, trial_folder
from daybreak.study.trials import Task, attempt, read_trial

_TUNING_SEED = 1_000_003  # of trials that choose a setting; no seed of the comparison
Settings = tuple[str, ...]  # overrides of what is tuned


@final
@dataclass(frozen=True)
class _Plan:
    """What is to be done.

    Attributes:
        beside: the folder of the study's file.
        recipes: of the variants, without what is tuned.
        until: reading of the monotonic clock at which this sitting ends.
    """

    design: Design
    beside: Path
    data: Path | None
    out: Path
    workers: Workers
    variants: Sequence[Variant]
    recipes: Mapping[str, Recipe]
    until: float | None


def conduct(
    file: Path, out: Path, *, data: Path | None = None, workers: Workers | None = None, seconds: float | None = None
) -> Study:
    """Make a study's trials, or go on with them.

    Args:
        file: the study's TOML file.
        out: its folder.
        data: the corpus, unless the recipes name theirs.
        workers: trials at once.
        seconds: of this sitting.

    Returns:
        The study as far as it has come.

    Raises:
        UserError: the design is not sound, or `out` holds another study.
    """
    began = time.monotonic()
    design, workers = Design.load(file), workers or Workers()
    made = variants(design)
    recipes = {each.name: _placed(each.recipe(design, file.parent), data, workers) for each in made}
    _require_distinct(made, recipes)
    if workers.engine == "here" and workers.count > 1 and choose_execution(recipes["base"]).device != "cpu":
        raise UserError("one GPU makes one trial at a time: leave --workers out, or use --engine ray with --gpus")
    until = None if seconds is None else began + seconds
    plan = _Plan(design, file.parent, data, out, workers, made, recipes, until)
    with locked(out):
        _write_or_compare(out, _described(plan))
        paces = _paces(plan)
        tuned = _tuned(plan, paces)
        if tuned is not None:
            _make(plan, [_trial(plan, variant, seed, tuned[variant.name], paces) for seed, variant in _turns(plan)])
    return read_study(out)


def _turns(plan: _Plan) -> Iterator[tuple[int, Variant]]:
    for index, seed in enumerate(plan.design.seeds):
        first = index % len(plan.variants)
        for variant in (*plan.variants[first:], *plan.variants[:first]):
            yield seed, variant


def _trial(plan: _Plan, variant: Variant, seed: int, tuned: Settings, paces: Mapping[str, Pace]) -> Task:
    recipe = _ready(plan, variant, tuned, plan.design.budget, seed, paces)
    folder = trial_folder(plan.out, variant.name, seed)
    return Task(variant.name, seed, folder, recipe, plan.design.validation, _until(plan), plan.design.keep)


def _ready(
    plan: _Plan, variant: Variant, tuned: Settings, budget: Duration, seed: int, paces: Mapping[str, Pace]
) -> Recipe:
    """A variant's recipe with all that a trial fixes."""
    pace = paces[variant.name]
    recipe = plan.recipes[variant.name]
    if tuned:
        changed = variant.model_copy(update={"overrides": (*variant.overrides, *tuned)})
        recipe = _placed(changed.recipe(plan.design, plan.beside), plan.data, plan.workers)
    if budget.unit is Unit.SECONDS and plan.design.clock == "pace":
        budget = budget_in_steps(budget.amount, pace.step_seconds)
    # A micro-batch that is tried out anew would make trials differ in more than their variant.
    execution = recipe.execution.model_copy(update={"micro_batch": pace.micro_batch})
    return recipe.model_copy(update={"budget": budget, "seed": seed, "execution": execution})


def _placed(recipe: Recipe, data: Path | None, workers: Workers) -> Recipe:
    """The recipe on its corpus, with its share of this machine.

    Raises:
        UserError: the corpus is missing, or does not fit.
    """
    if data is not None and not recipe.data.places:
        recipe = recipe.with_data(data)
    reading = Reading.open(recipe.data)
    require_fitting_tokenizer(recipe, reading.tokenizer)
    threads = workers.cores if workers.engine == "ray" else max(1, available_cores() // workers.count)
    execution = recipe.execution.model_copy(update={"threads": recipe.execution.threads or threads})
    return recipe.model_copy(update={"data": reading.placed, "execution": execution})


def _require_distinct(made: Sequence[Variant], recipes: Mapping[str, Recipe]) -> None:
    """Raises UserError for a variant that is its reference under another name."""
    for variant in made:
        if variant.reference is None:
            continue
        reference = recipes[variant.reference].model_copy(update={"name": variant.name})
        if recipes[variant.name] == reference:
            raise UserError(f"{variant.name} changes nothing: {variant.reference} has these settings already")


def _until(plan: _Plan) -> float | None:
    """On other machines another clock runs: there a sitting that is over begins no more trials."""
    return plan.until if plan.workers.engine == "here" else None


def _described(plan: _Plan) -> dict[str, Any]:
    """What must be the same when a study goes on."""
    readings = {name: Reading.open(recipe.data) for name, recipe in plan.recipes.items()}
    validation = plan.design.validation
    identities = {reading.tokenizer.identity for reading in readings.values()}
    if len(identities) > 1:
        raise UserError("the variants read corpora of different tokenizers, whose losses do not compare")
    device = torch.device(choose_execution(plan.recipes["base"]).device)
    return {
        "format": FORMAT,
        "design": plan.design.model_dump(mode="json", by_alias=True),
        "variants": [variant.model_dump(mode="json") for variant in plan.variants],
        "recipes": {name: recipe.model_dump(mode="json") for name, recipe in plan.recipes.items()},
        "text": {name: reading.described() for name, reading in readings.items()},
        "validation": None
        if validation is None
        else Reading.open(plan.recipes["base"].with_data(validation).data).described(),
        "tokenizer": identities.pop(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {device_name(device)}",
        "engine": plan.workers.engine,
    }


def _write_or_compare(out: Path, described: dict[str, Any]) -> None:
    """Raises UserError where a folder holds another study, or one that this machine cannot go on with."""
    if not (out / STUDY).exists():
        write_sealed(out / STUDY, described)
        return
    before = read_sealed(out / STUDY)
    differing = [key for key in described if before.get(key) != described[key]]
    if differing == ["engine"]:
        return
    if "design" in differing and before["design"] | {"seeds": 0} == described["design"] | {"seeds": 0}:
        raise UserError(
            f"{out} holds this study with seeds {before['design']['seeds']}: more of them, once results are known, "
            "would make chance look like a finding. Choose fresh seeds, and another --out"
        )
    if differing:
        raise UserError(f"{out} holds another study: {', '.join(differing)} differ; choose another --out")


def _paces(plan: _Plan) -> Mapping[str, Pace]:
    """The pace of each variant, measured once in the study's life."""
    path = plan.out / PACES
    if not path.exists():
        if plan.design.clock == "pace" and plan.design.budget.unit is Unit.SECONDS:
            for name, recipe in plan.recipes.items():
                require_steady(name, recipe)
        say(f"measuring the speed of {len(plan.recipes)} variants, by turns")
        (_, paces), *_ = run_tasks(_measure, [dict(plan.recipes)], replace(plan.workers, count=1))
        write_sealed(path, {name: pace.to_json() for name, pace in paces.items()})
    return {name: Pace.from_json(content) for name, content in read_sealed(path).items()}


def _measure(recipes: dict[str, Recipe]) -> dict[str, Pace]:
    return measure_paces(recipes, None, note=lambda name: say(f"  {name}"))


def _tuned(plan: _Plan, paces: Mapping[str, Pace]) -> Mapping[str, Settings] | None:
    """What each variant chose of what is tuned; None if the time was over before all had."""
    grid = [
        tuple(f"{key}={_toml(value)}" for key, value in zip(plan.design.tune, values, strict=True))
        for values in itertools.product(*plan.design.tune.values())
    ]
    if not plan.design.tune:
        return {variant.name: () for variant in plan.variants}
    budget = plan.design.tuning_budget or plan.design.budget
    tasks = {
        (variant.name, settings): Task(
            variant.name,
            _TUNING_SEED,
            plan.out / "tuning" / variant.name / f"{number:02d}",
            _ready(plan, variant, settings, budget, _TUNING_SEED, paces),
            plan.design.validation,
            _until(plan),
        )
        for variant in plan.variants
        for number, settings in enumerate(grid, start=1)
    }
    _make(plan, list(tasks.values()), what="tuning trial")
    found = {key: read_trial(task.out) for key, task in tasks.items()}
    losses = {key: trial.loss for key, trial in found.items() if trial is not None}
    if len(losses) < len(tasks):
        return None
    chosen = {
        variant.name: min(
            grid,
            key=lambda settings: (
                losses[variant.name, settings] != losses[variant.name, settings],
                losses[variant.name, settings],
            ),
        )
        for variant in plan.variants
    }
    record = {
        variant.name: {
            "chosen": list(chosen[variant.name]),
            "losses": {" ".join(settings): _or_none(losses[variant.name, settings]) for settings in grid},
        }
        for variant in plan.variants
    }
    write_sealed(plan.out / TUNED, record)
    return chosen


def _make(plan: _Plan, tasks: Sequence[Task], what: str = "trial") -> None:
    """Make what is missing, and say how far it is."""
    missing = [task for task in tasks if read_trial(task.out) is None]
    done, began = len(tasks) - len(missing), time.monotonic()
    if not missing:
        return
    say(f"{len(missing)} of {len(tasks)} {what}s to make, {plan.design.held_equal} each")
    for made, (task, attempted) in enumerate(run_tasks(attempt, _in_time(missing, plan.until), plan.workers), start=1):
        if attempted.failure is not None:
            say(f"warning: {task.variant}, seed {task.seed} failed: {attempted.failure}")
        if attempted.trial is None:
            if attempted.failure is None and plan.workers.count == 1 and plan.workers.engine == "here":
                return  # stopped by the time, or by the person
            continue
        left = (time.monotonic() - began) / made * (len(missing) - made)
        say(
            f"{what} {done + made} of {len(tasks)}: {task.variant}, seed {task.seed}: loss {attempted.trial.loss:.4f}, "
            f"{human_seconds(left)} left"
        )


def _in_time(tasks: Sequence[Task], until: float | None) -> Iterator[Task]:
    """The tasks, until the time is over."""
    return itertools.takewhile(lambda _: until is None or time.monotonic() < until, tasks)


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _or_none(value: float) -> float | None:
    return None if value != value else value
