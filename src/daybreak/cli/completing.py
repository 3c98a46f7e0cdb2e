"""What the shell proposes for arguments: recipes, runs, corpora.

Nothing here imports torch, or the shell would wait for it at every key. Where nothing is proposed, the shell falls back
on its own way with files.
"""

import tomllib
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from daybreak.folders import Kind, is_a

_NAMED_CORPORA = ("stdlib", "zero-one", "shakespeare", "enwik8", "text8", "wikitext", "openwebtext", "fineweb-edu")
_TOKENIZERS = ("gpt2", "bpe:4096", "bytes", "chars")

Proposals = list[tuple[str, str]]  # what may stand there, and what it is


def recipes(incomplete: str) -> Proposals:
    """The shipped recipes, and TOML files."""
    shipped = [file for file in files("daybreak.recipes").iterdir() if file.name.endswith(".toml")]
    described = ((Path(file.name).stem, tomllib.loads(file.read_text(encoding="utf-8"))) for file in shipped)
    known = sorted((name, str(content.get("description", ""))) for name, content in described)
    own = [(path, "") for path in _beside(incomplete, Path()) if path.endswith(".toml")]
    return _beginning(incomplete, [*known, *own])


def recipes_or_auto(incomplete: str) -> Proposals:
    """Of `train`: `auto` too."""
    return [*_beginning(incomplete, [("auto", "what suits the budget")]), *recipes(incomplete)]


def runs(incomplete: str) -> Proposals:
    """Folders of runs, in `runs` or where the word points to."""
    return _folders("run", incomplete, Path("runs"))


def runs_or_studies(incomplete: str) -> Proposals:
    """What has a report."""
    return [*runs(incomplete), *_folders("study", incomplete, Path("runs"))]


def corpora(incomplete: str) -> Proposals:
    """Folders of corpora, in `data` or where the word points to."""
    return _folders("corpus", incomplete, Path("data"))


def runs_or_corpora(incomplete: str) -> Proposals:
    """What has hashes."""
    return [*runs(incomplete), *corpora(incomplete)]


def sources(incomplete: str) -> Proposals:
    """Corpora that have a name."""
    return _beginning(incomplete, [(name, "") for name in _NAMED_CORPORA])


def tokenizers(incomplete: str) -> Proposals:
    """Tokenizers that have a name, and corpora whose own may be used again."""
    return [*_beginning(incomplete, [(name, "") for name in _TOKENIZERS]), *corpora(incomplete)]


def _folders(kind: Kind, incomplete: str, usual: Path) -> Proposals:
    found = [path for path in _beside(incomplete, usual) if is_a(kind, Path(path))]
    return _beginning(incomplete, [(path, "") for path in found])


def _beside(incomplete: str, usual: Path) -> list[str]:
    """What lies in the folder that a word points into; in the usual one while it points nowhere."""
    folder, slash, _ = incomplete.rpartition("/")
    place = Path(folder or "/") if slash else usual
    if not place.is_dir():
        return []
    written = f"{folder}/" if slash else "" if usual == Path() else f"{usual}/"
    return sorted(f"{written}{path.name}" for path in place.iterdir() if not path.name.startswith("."))


def _beginning(incomplete: str, proposed: Iterable[tuple[str, str]]) -> Proposals:
    return [each for each in proposed if each[0].startswith(incomplete)]
