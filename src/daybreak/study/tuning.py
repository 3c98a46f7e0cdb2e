"""What each variant chooses for itself: the same settings are tried with all of them, at the same budget."""

import math
from collections.abc import Callable, Mapping, Sequence

from daybreak.files import write_sealed
from daybreak.finite import finite
from daybreak.study.design import settings_to_try
from daybreak.study.pace import Pace
from daybreak.study.plan import Plan
from daybreak.study.results import TUNED
from daybreak.study.trials import Task, read_trial

_SEED = 1_000_003  # no seed of a comparison
Settings = tuple[str, ...]  # overrides


def tune(
    plan: Plan, paces: Mapping[str, Pace], make: Callable[[Sequence[Task]], None]
) -> Mapping[str, Settings] | None:
    """The settings with the lowest loss of each variant; none where nothing is tuned.

    Args:
        make: makes what is missing of some trials.

    Returns:
        By variant; None if not all could be tried.
    """
    if not plan.design.tune:
        return {variant.name: () for variant in plan.variants}
    grid = settings_to_try(plan.design)
    tasks = {
        (variant.name, settings): plan.task(
            variant,
            _SEED,
            plan.out / "tuning" / variant.name / f"{number:02d}",
            paces[variant.name],
            tuned=settings,
            budget=plan.design.tuning_budget,
        )
        for variant in plan.variants
        for number, settings in enumerate(grid, start=1)
    }
    make(list(tasks.values()))
    trials = {key: read_trial(task.out) for key, task in tasks.items()}
    losses = {key: trial.loss for key, trial in trials.items() if trial is not None}
    if len(losses) < len(tasks):
        return None
    names = [variant.name for variant in plan.variants]
    by_variant = {name: {settings: losses[name, settings] for settings in grid} for name in names}
    chosen = {name: min(grid, key=lambda settings: _or_infinite(tried[settings])) for name, tried in by_variant.items()}
    record = {
        name: {
            "chosen": list(chosen[name]),
            "losses": {" ".join(settings): loss for settings, loss in tried.items()},
        }
        for name, tried in by_variant.items()
    }
    write_sealed(plan.out / TUNED, finite(record))
    return chosen


def _or_infinite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf
