"""Benchmarks through lm-evaluation-harness, as they are asked for; what knows that package is imported only then."""

import importlib.util
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, final
from urllib.parse import urlparse

from daybreak.errors import UserError

if TYPE_CHECKING:
    from daybreak.evaluate.harness import Benchmarks

_NEEDED = ("lm_eval", "transformers", "datasets")


@final
@dataclass(frozen=True)
class TaskChoice:
    """Which tasks, and where their items come from.

    Attributes:
        names: tasks, groups or tags as the harness calls them; all of `folder` where there are none.
        folder: of task files (YAML) of one's own, besides the harness's.
        local: a task or group, and the file to read in place of its data set; `NAME:train` for the file that the
            examples in front of an item (shots) are drawn from.
        shots: examples in front of each item; the task's own number unless given.
        limit: the first items of each task; all unless given.
    """

    names: tuple[str, ...] = ()
    folder: Path | None = None
    local: Mapping[str, Path] = field(default_factory=dict)
    shots: int | None = None
    limit: int | None = None


def open_benchmarks(choice: TaskChoice) -> "Benchmarks":
    """Find the tasks, and read their items.

    Raises:
        UserError: a package is missing, there is no such task, or its items are neither local nor to be fetched.
    """
    require_harness()
    from daybreak.evaluate.harness import Benchmarks
    from daybreak.evaluate.tasks import load_tasks

    return Benchmarks(load_tasks(choice), choice.shots, choice.limit)


def parse_local(pairs: Sequence[str]) -> dict[str, Path]:
    """Files by the names of tasks, from `NAME=FILE`, as `--local` and a recipe's `tasks.local` have them.

    Raises:
        UserError: one has another form, or there is no such file.
    """
    found: dict[str, Path] = {}
    for pair in pairs:
        name, equals, file = pair.partition("=")
        if not name or not equals or not file:
            raise UserError(f"local items {pair!r}: write NAME=FILE, as arc_easy=ARC-Easy_validation.jsonl")
        if not Path(file).is_file():
            raise UserError(f"local items {pair!r}: there is no file {file}")
        if name in found:
            raise UserError(f"local items {pair!r}: {name} was given {found[name]} before; give one")
        found[name] = Path(file)
    return found


def require_harness() -> None:
    """Raises UserError if the packages of the extra are missing."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"tasks need lm-evaluation-harness ({', '.join(missing)} missing): pip install 'daybreak[eval]'"
        )
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    avoid_an_unreachable_hub()


def avoid_an_unreachable_hub() -> None:
    """Keep to what was downloaded where there is no network, else each name is tried for half a minute."""
    if not _reaches_the_hub():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def _reaches_the_hub() -> bool:
    if any(os.environ.get(name) for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")):
        return True
    host = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True
