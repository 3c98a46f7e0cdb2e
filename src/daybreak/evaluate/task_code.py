"""The own code of a task, which may fail in any way: said of the task that it is of."""

from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

from daybreak.errors import UserError
from daybreak.evaluate.items import field_that_lacked, missing_field
from daybreak.evaluate.quiet import quiet

Found = TypeVar("Found")


def run_its_code(
    name: str,
    work: Callable[[], Found],
    source: str,
    *,
    remedy: str = "",
    fields: Sequence[str] = (),
    own: bool = False,
) -> Found:
    """What comes of work that runs a task's code.

    Args:
        source: where the items are from.
        remedy: what to do where they cannot be had.
        fields: that they have, where that is known.
        own: the task is of the person's folder, and not the harness's.

    Raises:
        UserError: code cannot be imported, items lack a field, or whatever else went wrong.
    """
    try:
        with quiet():
            return work()
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"task {name} cannot be run: {_why_not_imported(error, own)}") from error
    except Exception as error:  # a task's own code may raise anything
        lacked = field_that_lacked(error)
        if lacked is not None and fields and lacked not in fields:
            raise UserError(missing_field(name, lacked, fields, source)) from error
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise UserError(f"task {name} cannot be read ({source}: {why})" + (f"; {remedy}" if remedy else "")) from error


def _why_not_imported(error: ImportError, own: bool) -> str:
    needed = error.name or str(error)
    package = needed.partition(".")[0]
    whose = "its code" if own else "its code in lm-evaluation-harness"
    try:
        found = f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{whose} needs {needed}, which is not installed"
    return f"{whose} needs {needed}, which {found} does not have"
