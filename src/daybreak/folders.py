"""What a folder is, and what is said of one that is not what was asked for."""

from difflib import SequenceMatcher
from pathlib import Path
from typing import Literal

from daybreak.errors import UserError

Kind = Literal["run", "study", "corpus"]

_MARKS: dict[Kind, str] = {"run": "recipe.toml", "study": "study.json", "corpus": "manifest.json"}
_USUAL: dict[Kind, Path] = {"run": Path("runs"), "study": Path("runs"), "corpus": Path("data")}
_MADE_BY: dict[Kind, str] = {"run": "daybreak train", "study": "daybreak study", "corpus": "daybreak prepare"}
_MOST_NAMED = 5


def is_a(kind: Kind, path: Path) -> bool:
    """Whether a folder looks like one, without reading it; a checkpoint, which has a manifest too, is none."""
    return (path / _MARKS[kind]).is_file() and not (path / "state.json").is_file()


def is_no(path: Path, *kinds: Kind) -> UserError:
    """The error of a path that is none of what was asked for: why not, and what lies where it might have been meant."""
    found = _likely(path, kinds)
    there = f"there {'is' if len(found) == 1 else 'are'} {', '.join(map(str, found))}, and " if found else ""
    made = " and ".join(_MADE_BY[kind] for kind in kinds) + (" makes one" if len(kinds) == 1 else " make them")
    return UserError(f"{path} is not a {' or a '.join(kinds)}: {_why(path, kinds)}; {there}{made}")


def _why(path: Path, kinds: tuple[Kind, ...]) -> str:
    if not path.exists():
        return "there is no such folder"
    if not path.is_dir():
        return "it is a file"
    if (path / "state.json").is_file():
        return f"it is a checkpoint of {path.parent.parent}"
    other = next((kind for kind in _MARKS if is_a(kind, path)), None)
    return f"it is a {other}" if other else f"it has no {' and no '.join(_MARKS[kind] for kind in kinds)}"


def _likely(path: Path, kinds: tuple[Kind, ...]) -> list[Path]:
    """What of these kinds lies in a path, or else beside it, or else where they usually are; alike names first."""
    for place in (path, path.parent, *(_USUAL[kind] for kind in kinds)):
        if place.is_dir():
            found = [each for each in place.iterdir() if any(is_a(kind, each) for kind in kinds)]
            if found:
                return sorted(found, key=lambda each: (-_likeness(each.name, path.name), each.name))[:_MOST_NAMED]
    return []


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()
