"""A study, made trial by trial until all are done or the time is over; the same command goes on.

Seeds are the outer loop, variants the inner one, and who begins moves on with each seed: whatever the machine does in
an hour falls on all variants alike.
"""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from daybreak.duration import human_seconds
from daybreak.errors import UserError
from daybreak.executor import Workers, run_tasks
from daybreak.files import locked, write_sealed
from daybreak.progress import say
from daybreak.recipe import Recipe
from daybreak.study.design import Variant
from daybreak.study.folder import write_or_compare
from daybreak.study.pace import Pace, measure_paces, require_steady
from daybreak.study.plan import Plan
from daybreak.study.results import PACES, Study, read_paces, read_study, trial_folder
from daybreak.study.statistics import scipy_stats
from daybreak.study.trials import Task, attempt, read_trial
from daybreak.study.tuning import tune
from daybreak.training.execution import threads_restored

_UNSTEADY = 0.03  # of a speed


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
    until = None if seconds is None else time.monotonic() + seconds
    if (out / "recipe.toml").exists():
        raise UserError(f"{out} is the folder of a run; choose another --out")
    plan = Plan.of(file, out, data, workers or Workers(), until)
    if len(plan.design.seeds) > 1:
        scipy_stats()  # a missing one is said before hours of training
    with locked(out):
        write_or_compare(plan)
        paces = _paces(plan)
        tuned = tune(plan, paces, lambda tasks: _make(plan, paces, tasks, "tuning trial"))
        if tuned is not None:
            trials = [
                plan.task(
                    variant,
                    seed,
                    trial_folder(out, variant.name, seed),
                    paces[variant.name],
                    tuned=tuned[variant.name],
                )
                for seed, variant in _turns(plan)
            ]
            _make(plan, paces, trials, "trial")
    return read_study(out)


def _turns(plan: Plan) -> Iterator[tuple[int, Variant]]:
    for index, seed in enumerate(plan.design.seeds):
        first = index % len(plan.variants)
        for variant in (*plan.variants[first:], *plan.variants[:first]):
            yield seed, variant


def _paces(plan: Plan) -> Mapping[str, Pace]:
    """The pace of each variant, measured once in the study's life."""
    path = plan.out / PACES
    if not path.exists():
        if plan.design.is_paced:
            for name, recipe in plan.recipes.items():
                require_steady(name, recipe)
        if any((plan.out / made).exists() for made in ("tuning", "trials")):
            raise UserError(
                f"{path} is missing, by which the trials of {plan.out} were made; restore it, or begin anew"
            )
        say(f"measuring the speed of {len(plan.recipes)} variants, by turns")
        (_, paces), *_ = run_tasks(_measure, [dict(plan.recipes)], replace(plan.workers, count=1))
        write_sealed(path, {name: asdict(pace) for name, pace in paces.items()})
        unsteady = {name: pace.error for name, pace in paces.items() if pace.error > _UNSTEADY}
        if unsteady and plan.design.is_paced:
            shown = ", ".join(f"{name} {error:.0%}" for name, error in unsteady.items())
            say(
                f"warning: speeds are known no better than {shown}: this machine is busy; better begin anew when it "
                "is not"
            )
    return read_paces(plan.out)


def _measure(recipes: dict[str, Recipe]) -> dict[str, Pace]:
    with threads_restored():
        return measure_paces(recipes, note=lambda name: say(f"  {name}"))


def _make(plan: Plan, paces: Mapping[str, Pace], tasks: Sequence[Task], what: str) -> None:
    """Make what is missing, and say how far it is."""
    missing = [task for task in tasks if read_trial(task.out) is None]
    if not missing:
        return
    done, began = len(tasks) - len(missing), time.monotonic()
    expected = sum(paces[task.variant].seconds_of(task.recipe) for task in missing) / max(1, plan.workers.count)
    say(
        f"{len(missing)} of {len(tasks)} {what}s to make, each with {plan.design.held_equal}: "
        f"about {human_seconds(expected)} of training"
    )
    attempts = run_tasks(attempt, itertools.takewhile(lambda _: plan.in_time, missing), plan.workers)
    for made, (task, attempted) in enumerate(attempts, start=1):
        if attempted.failure is not None:
            say(f"warning: {task.variant}, seed {task.seed} failed: {attempted.failure}")
        elif attempted.trial is None:  # stopped by the time, or by a person
            return
        else:
            left = (time.monotonic() - began) / made * (len(missing) - made)
            say(
                f"{what} {done + made} of {len(tasks)}: {task.variant}, seed {task.seed}: "
                f"loss {attempted.trial.loss:.4f}, {human_seconds(left)} left"
            )
