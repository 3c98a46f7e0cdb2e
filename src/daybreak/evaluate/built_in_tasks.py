"""Where the harness's own tasks lie: reading all of their 14,000 files as it does takes ten seconds."""

import re
from functools import cache
from pathlib import Path

import lm_eval.tasks

_ROOT = Path(lm_eval.tasks.__file__).parent
_DECLARED = re.compile(rb"^[\"']?(?:task|group|tag)[\"']?:[ \t]*[\"']?([\w.+-]+)[\"']?[ \t]*\r?$", re.MULTILINE)


def folders_of(name: str) -> list[Path]:
    """The folders with the files that declare a task, group or tag; none if there is no such."""
    likely = tuple(path for path in _ROOT.iterdir() if path.is_dir() and name.startswith(path.name))
    for roots in (likely, (_ROOT,)):
        found = {path.parent for root in roots for path, names in _declarations(root) if name in names}
        if found:
            return sorted(found)
    return []


def all_names() -> list[str]:
    """Of all tasks, groups and tags."""
    return sorted({name for _, names in _declarations(_ROOT) for name in names})


@cache
def _declarations(root: Path) -> tuple[tuple[Path, frozenset[str]], ...]:
    """Task files under a folder, and the names that each declares."""
    found = ((path, _DECLARED.findall(path.read_bytes())) for path in sorted(root.rglob("*.yaml")))
    return tuple((path, frozenset(name.decode() for name in names)) for path, names in found if names)
