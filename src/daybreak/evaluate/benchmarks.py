"""Benchmarks through lm-evaluation-harness, as they are asked for; what knows that package is imported only then."""

import importlib.util
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from daybreak.errors import UserError
from daybreak.evaluate.task_choice import TaskChoice

if TYPE_CHECKING:
    from daybreak.evaluate.harness import Benchmarks

_NEEDED = ("lm_eval", "transformers", "datasets")


def open_benchmarks(choice: TaskChoice) -> "Benchmarks":
    """Find the tasks, and read their items.

    Raises:
        UserError: a package is missing, there is no such task, or its items are neither local nor to be fetched,
            damaged, or too few for the examples in front of them.
    """
    require_harness()
    from daybreak.evaluate.harness import Benchmarks
    from daybreak.evaluate.items import require_examples
    from daybreak.evaluate.tasks import load_tasks

    loaded = load_tasks(choice)
    require_examples(loaded.tasks, choice.shots)
    return Benchmarks(loaded, choice.shots, choice.limit)


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
