"""Tasks whose results stay on disk, so that work that was done is not done again.

What a task makes has a name that is the hash of all it depends on; what it returns lies beside it, sealed.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from daybreak.executor import Workers, run_tasks
from daybreak.files import canonical_json, read_sealed, sha256_bytes, write_sealed

_DIGITS_OF_A_NAME = 24


class Task(Protocol):
    """What every task has: where its results go; their names begin so."""

    @property
    def out(self) -> Path: ...


Kind = TypeVar("Kind", bound=Task)


def perform(
    function: Callable[[Kind], dict[str, Any]],
    tasks: Sequence[Kind],
    workers: Workers,
    done: Callable[[Kind], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """What each task returns, those of earlier sittings included.

    Args:
        done: told of each.

    Raises:
        UserError: raised by a task, or a worker was lost; what the others returned is kept.
    """
    results: dict[Path, dict[str, Any]] = {}
    left: dict[Path, tuple[Callable[[Kind], dict[str, Any]], Kind]] = {}
    for task in tasks:
        marker = _result_file(task.out)
        if marker.exists():
            results[marker] = read_sealed(marker)
            done(task)
        else:
            left[marker] = (function, task)
    for (_, task), result in run_tasks(_finished, list(left.values()), workers):
        results[_result_file(task.out)] = result
        done(task)
    return [results[_result_file(task.out)] for task in tasks]


def _finished(job: tuple[Callable[[Kind], dict[str, Any]], Kind]) -> dict[str, Any]:
    """Do a task, and leave what it returns."""
    function, task = job
    task.out.parent.mkdir(parents=True, exist_ok=True)
    result = function(task)
    write_sealed(_result_file(task.out), result)
    return result


def named(folder: Path, *determinants: Any) -> Path:
    """Where the results lie that depend on these, which can be JSON."""
    return folder / sha256_bytes(canonical_json(determinants))[:_DIGITS_OF_A_NAME]


def _result_file(out: Path) -> Path:
    return out.with_name(f"{out.name}.json")
