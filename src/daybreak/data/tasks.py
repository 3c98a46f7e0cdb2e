"""Tasks whose results stay on disk, so that work that was done is not done again.

What a task makes has a name that is the hash of all it depends on. What it returns lies beside it, sealed, with the
hashes of all files it made: those that are not what they were are made anew.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, TypeVar

from daybreak.executor import Workers, run_tasks
from daybreak.files import canonical_json, file_problem, read_sealed, sha256_bytes, sha256_file, sync_file, write_sealed
from daybreak.progress import say

_DIGITS_OF_A_NAME = 24
_PACKAGES = ("daybreak", "ftfy", "py3langid", "pyarrow", "rensa", "tiktoken", "tokenizers", "trafilatura", "warcio")


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
        result = _earlier(task.out)
        if result is None:
            left[task.out] = (function, task)
        else:
            results[task.out] = result
            done(task)
    for (_, task), result in run_tasks(_finished, list(left.values()), workers):
        results[task.out] = result
        done(task)
    return [results[task.out] for task in tasks]


def _earlier(out: Path) -> dict[str, Any] | None:
    """What a task returned before; None if it has not, or its files are damaged."""
    path = _result_file(out)
    if not path.exists():
        return None
    kept = read_sealed(path)
    for name, sha256 in kept["sha256"].items():
        problem = file_problem(out.parent / name, sha256)
        if problem is not None:
            say(f"{problem}; making it anew")
            return None
    result: dict[str, Any] = kept["result"]
    return result


def _finished(job: tuple[Callable[[Kind], dict[str, Any]], Kind]) -> dict[str, Any]:
    """Do a task, and leave what it returns."""
    function, task = job
    task.out.parent.mkdir(parents=True, exist_ok=True)
    result = function(task)
    hashes = {str(path.relative_to(task.out.parent)): sha256_file(path) for path in sorted(_files_of(task.out))}
    for name in hashes:
        sync_file(task.out.parent / name)
    write_sealed(_result_file(task.out), {"result": result, "sha256": hashes})
    return result


def _files_of(out: Path) -> Iterator[Path]:
    if out.is_dir():
        yield from (path for path in out.rglob("*") if path.is_file())
    for path in (out, *out.parent.glob(f"{out.name}.*")):
        if path.is_file() and path != _result_file(out):
            yield path


def named(folder: Path, *determinants: Any) -> Path:
    """Where the results lie that depend on these, which can be JSON, and on the code that makes them."""
    return folder / sha256_bytes(canonical_json([determinants, made_by()]))[:_DIGITS_OF_A_NAME]


@cache
def made_by() -> dict[str, str]:
    """Versions of what a corpus depends on, where they are installed."""
    found = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _result_file(out: Path) -> Path:
    return out.with_name(f"{out.name}.json")


def beside(stem: Path, suffix: str) -> Path:
    """The file of that suffix among those of a stem."""
    return stem.with_name(f"{stem.name}.{suffix}")
