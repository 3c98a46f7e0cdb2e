"""Files outside `docs/` that pages link to: on GitHub they are there, in the site each becomes a page of its own."""

import posixpath
import re
from functools import cache
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)(#[^)\s]*)?(?=\))")
_LANGUAGES = {".py": "python", ".toml": "toml", ".sh": "bash", ".jsonl": "json", ".json": "json", ".ipynb": "json"}
_LARGEST = 60_000  # bytes that are shown; the rest is only named


def linked_from(markdown: str, page: str) -> set[str]:
    """Paths in the repository, outside `docs/`, that a page of `docs/` links to.

    Args:
        page: its path in `docs/`.
    """
    return {path for path in (_outside(match[1], page) for match in _LINK.finditer(markdown)) if path is not None}


def with_contents(paths: set[str]) -> set[str]:
    """The same and, of folders, the files that are in them."""
    folders = [path for path in paths if (ROOT / path).is_dir()]
    return paths | {f"{folder}/{name}" for folder in folders for name in _shown(folder)}


def place_of(path: str) -> str:
    """Where the page of a file or folder lies in the site, as a Markdown file would."""
    return f"files/{path}/index.md" if (ROOT / path).is_dir() else f"files/{path}.md"


def page_of(path: str) -> str:
    """The page of a file or a folder, in Markdown."""
    found = ROOT / path
    if found.is_dir():
        names = "\n".join(f"- [{name}]({name}.md)" for name in _shown(path))
        return f"---\ntitle: {path}\n---\n# `{path}`\n\n{names}\n"
    text = found.read_text(encoding="utf-8")
    if found.suffix == ".md":
        return text if text.startswith("# ") else f"# `{path}`\n\n{text}"
    shown = text[:_LARGEST]
    rest = f"\nThe first {_LARGEST:,} of {len(text):,} characters.\n" if len(shown) < len(text) else ""
    fence = "`" * 6
    return (
        f"---\ntitle: {path}\n---\n# `{path}`\n\n{fence}{_LANGUAGES.get(found.suffix, 'text')}\n{shown}{fence}\n{rest}"
    )


def rewritten(markdown: str, page: str) -> str:
    """Links that leave `docs/` lead to those pages instead; other links stay."""

    def turned(match: re.Match[str]) -> str:
        outside = _outside(match[1], page)
        if outside is None:
            return match[0]
        return posixpath.relpath(place_of(outside), posixpath.dirname(page) or ".") + (match[2] or "")

    return _LINK.sub(turned, markdown)


def _outside(link: str, page: str) -> str | None:
    """The path in the repository that a link leads to, if it is outside `docs/`."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    return None if path == "docs" or path.startswith(("docs/", "..")) else path


@cache
def _shown(folder: str) -> tuple[str, ...]:
    names = sorted(each.name for each in (ROOT / folder).iterdir() if each.is_file())
    return tuple(name for name in names if PurePosixPath(name).suffix in {*_LANGUAGES, ".md"})
