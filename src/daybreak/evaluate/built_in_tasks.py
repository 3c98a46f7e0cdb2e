"""Where the harness's own tasks lie: reading all of their 14,000 files as it does takes ten seconds."""

import re
from functools import cache
from pathlib import Path

import lm_eval.tasks

_ROOT = Path(lm_eval.tasks.__file__).parent
_NAME = rb"[\"']?([\w.+-]+)[\"']?[ \t]*\r?$"
_DECLARED = re.compile(rb"^[\"']?(?:task|group)[\"']?:[ \t]*" + _NAME, re.MULTILINE)
_TAGS = re.compile(rb"^[\"']?tag[\"']?:[ \t]*([^\n]*(?:\n[ \t]*-[^\n]*)*)", re.MULTILINE)  # one, or a list below
_TAG = re.compile(rb"(?:^|-[ \t]+)" + _NAME, re.MULTILINE)
_INCLUDED = re.compile(rb"^[\"']?include[\"']?:[ \t]*[\"']?([^\"'\r\n]+)", re.MULTILINE)


def folders_of(name: str) -> list[Path]:
    """The folders with the files that declare a task or group, or are under a tag; none if there is no such."""
    likely = tuple(path for path in _ROOT.iterdir() if path.is_dir() and name.startswith(path.name))
    for roots in (likely, (_ROOT,)):
        found = {path.parent for root in roots for path, names in _declarations(root) if name in names}
        if found:
            return sorted(found)
    return sorted({path.parent for path, names in _tagged() if name in names})


def is_built_in(name: str) -> bool:
    """The harness has a task or group of this name."""
    return any(name in names for _, names in _declarations(_ROOT))


def all_names() -> list[str]:
    """Of all tasks, groups and tags."""
    return sorted({name for _, names in (*_declarations(_ROOT), *_tagged()) for name in names})


@cache
def _declarations(root: Path) -> tuple[tuple[Path, frozenset[str]], ...]:
    """Task files under a folder, and the names that each declares."""
    found = ((path, _DECLARED.findall(path.read_bytes())) for path in sorted(root.rglob("*.yaml")))
    return tuple((path, frozenset(name.decode() for name in names)) for path, names in found if names)


@cache
def _tagged() -> tuple[tuple[Path, frozenset[str]], ...]:
    """Task files, and the tags of each."""
    return tuple((path, tags) for path, _ in _declarations(_ROOT) if (tags := _tags(path)))


@cache
def _tags(path: Path) -> frozenset[str]:
    """The tags that a file has, or that it inherits from the one that it includes."""
    content = path.read_bytes()
    own = _TAGS.search(content)
    if own is not None:
        return frozenset(name.decode() for name in _TAG.findall(own[1]))
    included = _INCLUDED.search(content)
    base = None if included is None else path.parent / included[1].decode().strip()
    return _tags(base.resolve()) if base is not None and base.is_file() else frozenset()
