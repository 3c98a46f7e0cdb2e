"""Which benchmarks are asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final


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
