"""Check every hash of a corpus or a run, and say all that is wrong with it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from daybreak.checkpoint import hashed_files, list_checkpoints
from daybreak.data.shards import Corpus
from daybreak.errors import UserError
from daybreak.files import file_problem, read_sealed, require_text
from daybreak.folders import is_no
from daybreak.identity import read_execution, read_identity, read_recipe
from daybreak.training.metrics import damaged_lines


@final
@dataclass(frozen=True)
class Checked:
    """A file that was looked at, and what is wrong with it; None if nothing is."""

    path: Path
    problem: str | None


def verify(path: Path) -> Iterator[Checked]:
    """Look at every file of a corpus or of a run, one at a time; reads all of them.

    Raises:
        UserError: `path` is neither.
    """
    require_text(path)
    if any((path / name).exists() for name in ("recipe.toml", "identity.json", "checkpoints")):
        yield from _verify_run(path)
    elif any((path / name).exists() for name in ("manifest.json", "tokenizer.json", "train-00000.bin")):
        yield from _verify_corpus(path)
    else:
        raise is_no(path, "run", "corpus")


def _verify_corpus(path: Path) -> Iterator[Checked]:
    try:
        corpus = Corpus.open_unverified(path)
    except UserError as error:
        yield Checked(path / "manifest.json", str(error))
        return
    yield Checked(path / "manifest.json", None)
    yield Checked(path / "tokenizer.json", None)
    for file, size, sha256 in corpus.files():
        yield Checked(file, file_problem(file, sha256, size) or corpus.unknown_id(file))


def _verify_run(path: Path) -> Iterator[Checked]:
    yield _tried(path / "identity.json", lambda _: read_identity(path))
    yield _tried(path / "recipe.toml", lambda _: read_recipe(path))
    yield _tried(path / "tokenizer.json", lambda file: _require_hash(file, "tokenizer_sha256"))
    yield _tried(path / "execution.json", lambda _: read_execution(path))
    for checkpoint in list_checkpoints(path / "checkpoints"):
        yield from _verify_checkpoint(checkpoint)
    if (path / "finished.json").exists():
        yield _tried(path / "finished.json", read_sealed)
    damaged = damaged_lines(path / "metrics.jsonl")
    shown = ", ".join(str(number) for number in damaged[:5]) + (", …" if len(damaged) > 5 else "")
    said = f"{len(damaged)} lines were cut short by a crash or are damaged, and are passed over: {shown}"
    yield Checked(path / "metrics.jsonl", said if damaged else None)


def _verify_checkpoint(path: Path) -> Iterator[Checked]:
    try:
        hashes = hashed_files(path)
    except UserError as error:
        yield Checked(path / "manifest.json", str(error))
        return
    yield Checked(path / "manifest.json", None)
    for file, sha256 in hashes.items():
        yield Checked(file, file_problem(file, sha256))


def _require_hash(file: Path, name: str) -> None:
    problem = file_problem(file, str(read_sealed(file.parent / "identity.json").get(name)))
    if problem is not None:
        raise UserError(problem)


def _tried(file: Path, check: Callable[[Path], object]) -> Checked:
    try:
        check(file)
    except UserError as error:
        return Checked(file, str(error))
    return Checked(file, None)
