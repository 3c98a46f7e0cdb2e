"""Suites: several tasks that make one score or one table, beside the figures that others published."""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from daybreak.errors import UserError
from daybreak.evaluate.results import TaskResult, TaskResults
from daybreak.evaluate.task_choice import TaskChoice

SuiteName = Literal["core", "gpt-star"]
SUITES: tuple[SuiteName, ...] = get_args(SuiteName)
Measure = Callable[[TaskChoice], TaskResults]
Check = Callable[[TaskChoice], object]

PUBLISHED = Path(__file__).parent / "published"


def measured(measure: Measure, choice: TaskChoice, missing: dict[str, str], name: str) -> TaskResult | None:
    """What a task came to; None if its items cannot be had, and why in `missing`."""
    try:
        return measure(choice).tasks[0]
    except UserError as error:
        if choice.local:  # the person's file is wrong
            raise
        missing[name] = str(error)
        return None


def opened_first(choices: Sequence[TaskChoice], check: Check) -> None:
    """Open the tasks that the person gave files for, so that a wrong file is said before anything is scored.

    Raises:
        UserError: one cannot be read.
    """
    for choice in choices:
        if choice.local:
            check(choice)


def require_known(local: Mapping[str, Path], names: Sequence[str]) -> None:
    """Raises UserError for a file of a task that is none of these."""
    for name in local:
        if name.partition(":")[0] not in names:
            raise UserError(f"--local names {name}, which is not among the tasks of this suite ({', '.join(names)})")


def published(name: SuiteName) -> dict[str, Any]:
    """The tasks of a suite, and figures to compare with."""
    return tomllib.loads((PUBLISHED / f"{name}.toml").read_text(encoding="utf-8"))
