"""CORE: the 22 tasks of DataComp-LM (Li et al. 2024, arXiv 2406.11794) that make one score."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from daybreak.evaluate.results import Figure
from daybreak.evaluate.suites import PUBLISHED, Check, Measure, measured, opened_first, published, require_known
from daybreak.evaluate.task_choice import TaskChoice
from daybreak.text_table import plain_table

_OWN_TASKS = PUBLISHED / "core_tasks"
_NOT_THERE = "lm-evaluation-harness has no such task"


@final
@dataclass(frozen=True)
class CoreTask:
    """One of the tasks of CORE.

    Attributes:
        harness: the harness's task that asks the same; None if it has none.
        own: the task that asks it in its place, of a file in DCLM's form.
        metric: of that task, an accuracy.
        chance: the accuracy of guessing.
    """

    name: str
    shots: int
    chance: float
    harness: str | None = None
    own: str | None = None
    metric: str = "acc"

    @property
    def asked(self) -> str:
        """The task that is run."""
        return self.harness or self.own or self.name


@final
@dataclass(frozen=True)
class Core:
    """What a model came to on CORE (Li et al. 2024, arXiv 2406.11794).

    Attributes:
        accuracies: of the tasks that could be run, by name.
        missing: why the others could not.
        compare: what others came to on all tasks.
    """

    tasks: Sequence[CoreTask]
    accuracies: Mapping[str, Figure]
    missing: Mapping[str, str]
    compare: Mapping[str, float]

    @property
    def centred(self) -> dict[str, float]:
        """(accuracy - chance) / (1 - chance): 0 is guessing, 1 is perfect."""
        chance = {task.name: task.chance for task in self.tasks}
        return {name: (figure.value - chance[name]) / (1 - chance[name]) for name, figure in self.accuracies.items()}

    @property
    def score(self) -> float:
        """The mean over the tasks that could be run."""
        return math.fsum(self.centred.values()) / len(self.centred) if self.centred else math.nan

    @property
    def partial(self) -> bool:
        return bool(self.missing)

    def described(self) -> dict[str, Any]:
        """As JSON has it; a partial score has another name, so that nobody takes it for the whole."""
        score = None if math.isnan(self.score) else self.score
        return {
            "suite": "core",
            "partial_core" if self.partial else "core": score,
            "tasks": {
                task.name: {
                    "accuracy": self.accuracies[task.name].value,
                    "standard_error": self.accuracies[task.name].standard_error,
                    "chance": task.chance,
                    "centred": self.centred[task.name],
                    "few_shot": task.shots,
                    "task": task.asked,
                    "metric": task.metric,
                }
                for task in self.tasks
                if task.name in self.accuracies
            },
            "missing": dict(self.missing),
        }

    def table(self) -> list[str]:
        rows = [("task", "as", "shots", "accuracy", "± s.e.", "chance", "centred")]
        for task in self.tasks:
            if task.name in self.accuracies:
                figure = self.accuracies[task.name]
                error = "" if figure.standard_error is None else f"{100 * figure.standard_error:.2f} %"
                accuracy = f"{100 * figure.value:.2f} %"
                chance, centred = f"{100 * task.chance:.1f} %", f"{self.centred[task.name]:.4f}"
                how = f"{task.asked}, {task.metric}"
                rows.append((task.name, how, str(task.shots), accuracy, error, chance, centred))
        lines = plain_table(rows, left=(0, 1)) if self.accuracies else []
        lines += [f"missing: {name} ({why})" for name, why in self.missing.items()]
        of = f"{len(self.accuracies)} of {len(self.tasks)} tasks"
        if self.partial:
            lines.append(f"partial CORE {self.score:.4f}, over {of}: not to be compared with a CORE of all")
        else:
            lines.append(f"CORE {self.score:.4f}, over {of}")
        return [*lines, *(f"  {name}: {score:.4f}" for name, score in self.compare.items())]


def measure_core(measure: Measure, check: Check, local: Mapping[str, Path], limit: int | None = None) -> Core:
    """Run what can be run of CORE.

    Args:
        measure: what some tasks come to; raises UserError where they cannot be run.
        check: opens tasks; raises UserError where they cannot be read.
        local: files in place of data sets, by the name of a task, here or in the harness.
    """
    content = published("core")
    tasks = [CoreTask(**task) for task in content["task"]]
    require_known(local, [name for task in tasks for name in (task.name, task.asked)])
    accuracies: dict[str, Figure] = {}
    missing: dict[str, str] = {}
    choices: list[tuple[CoreTask, TaskChoice]] = []
    for task in tasks:
        items = local.get(task.asked) or local.get(task.name)
        if task.harness is None and items is None:
            missing[task.name] = f"{_NOT_THERE}; give DCLM's file by --local {task.name}=FILE"
            continue
        files = {name: file for name, file in local.items() if name.startswith(f"{task.asked}:")}
        if items is not None:
            files[task.asked] = items
        folder = None if task.own is None else _OWN_TASKS
        choices.append((task, TaskChoice((task.asked,), folder, files, task.shots, limit)))
    opened_first([choice for _, choice in choices], check)
    for task, choice in choices:
        found = measured(measure, choice, missing, task.name)
        if found is not None:
            accuracies[task.name] = found.figures[task.metric]
    return Core(tasks, accuracies, missing, content["compare"])
