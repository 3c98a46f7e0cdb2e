"""What a run is, as its folder says: recipe, execution, identity; and whether a recipe may go on with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from pydantic import ValidationError

from daybreak.checkpoint import Checkpoint
from daybreak.data.reading import Reading
from daybreak.data.tokenizer import Tokenizer
from daybreak.duration import Unit
from daybreak.errors import UserError
from daybreak.files import read_sealed, sha256_bytes, sha256_file, write_bytes, write_json, write_sealed
from daybreak.recipe import Recipe
from daybreak.training.execution import Execution

_FORMAT = 1  # of a run's folder: what its files are called and hold
# What the saved tensors and the place are made for.
_FIXED = ("model", "data.window", "data.packing", "data.tokenizer", "optimizer.kind", "freeze", "init")
# What no step computes differently for, beyond its last bits.
_FREE = (
    "name", "description", "evaluation", "checkpoint", "samples", "tasks", "diagnostics", "execution", "parallel",
    "tracking", "init.source",
)  # fmt: skip
_COURSE = ("execution.precision", "execution.weights")


@final
@dataclass(frozen=True)
class Changes:
    """How a recipe differs from the one a run was begun with, one line a setting.

    Attributes:
        fixed: what cannot change within a run.
        course: what changes what is computed from here on.
        free: what does not.
    """

    fixed: tuple[str, ...] = ()
    course: tuple[str, ...] = ()
    free: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return self.fixed + self.course + self.free


def changes_to(path: Path, recipe: Recipe, reading: Reading) -> Changes:
    """What is different in `recipe` and in what it reads from those of the run in `path`."""
    before, identity = read_recipe(path), read_identity(path)
    # Where the corpora lie may change; what is in them is held by their hashes.
    if len(before.data.places) == len(recipe.data.places):
        before = before.model_copy(update={"data": before.data.lying_at(recipe.data.places)})
    differences = recipe.differences(before)
    fixed = [line for line in differences if _is_under(line, _FIXED) and not _is_under(line, _FREE)]
    free_here = _FREE if recipe.budget.unit is Unit.DOLLARS else (*_FREE, "price")
    free = [line for line in differences if _is_under(line, free_here) and not _is_under(line, _COURSE)]
    course = [line for line in differences if line not in fixed and line not in free]
    if identity.get("tokenizer") != reading.tokenizer.identity:
        fixed.append(f"data: the corpus {reading.corpora[0].path} has another tokenizer")
    elif len(identities := _corpora_of(identity)) == len(reading.corpora):  # else their number is a difference
        course += [
            f"data: another version of the corpus, {corpus.path} here"
            for corpus, hash_before in zip(reading.corpora, identities, strict=True)
            if corpus.identity != hash_before
        ]
    return Changes(tuple(fixed), tuple(course), tuple(free))


def _corpora_of(identity: Mapping[str, Any]) -> list[Any]:
    """The identities of the corpora that a run was begun with."""
    sources = identity.get("mixture")
    return [identity.get("corpus")] if sources is None else [source["identity"] for source in sources]


def write_identity(path: Path, recipe: Recipe, reading: Reading, origin: Mapping[str, Any] | None) -> None:
    """Write what identifies a run; a crash leaves the recipe before or the new one, both of them trusted.

    Args:
        origin: the trained model that it began from, as it describes itself; None if from random values.
    """
    described = reading.described() | ({} if origin is None else {"origin": dict(origin)})
    _write_identity(path, recipe, reading.tokenizer, described)


def write_imported_identity(path: Path, recipe: Recipe, tokenizer: Tokenizer, source: str, architecture: str) -> None:
    """Of a model that was not trained here, but read from `source`, in a class of transformers."""
    _write_identity(path, recipe, tokenizer, {"imported": {"source": source, "architecture": architecture}})


def _write_identity(path: Path, recipe: Recipe, tokenizer: Tokenizer, described: Mapping[str, Any]) -> None:
    write_json(path / "tokenizer.json", tokenizer.to_json())
    text = recipe.to_toml().encode()
    before = sha256_file(path / "recipe.toml") if (path / "recipe.toml").exists() else None
    identity = {
        "format": _FORMAT,
        "fingerprint": recipe.fingerprint,
        "recipe_sha256": sha256_bytes(text),
        "recipe_before_sha256": before,
        **described,
        "tokenizer": tokenizer.identity,
        "tokenizer_sha256": sha256_file(path / "tokenizer.json"),
    }
    write_sealed(path / "identity.json", identity)
    write_bytes(path / "recipe.toml", text)


def read_identity(path: Path) -> dict[str, Any]:
    """What identifies a run.

    Raises:
        UserError: it is missing, damaged, or of a run in a format that is not known here.
    """
    identity = read_sealed(path / "identity.json")
    if identity.get("format") != _FORMAT:
        raise UserError(
            f"{path} is a run of another Daybreak: format {identity.get('format')} is not known here, only {_FORMAT}; "
            "use the version that made it, or a newer one"
        )
    return identity


def origin_of(path: Path) -> dict[str, Any] | None:
    """The trained model that a run began from; None if it began from random values."""
    if not (path / "identity.json").exists():
        return None
    origin = read_identity(path).get("origin")
    return origin if isinstance(origin, dict) else None


def read_recipe(path: Path) -> Recipe:
    """Raises UserError if the recipe of a run was changed since it began."""
    identity = read_identity(path)
    recipe = Recipe.load(path / "recipe.toml")
    if sha256_file(path / "recipe.toml") not in (identity.get("recipe_sha256"), identity.get("recipe_before_sha256")):
        raise UserError(f"{path / 'recipe.toml'} was changed after the run began; restore it, or train anew")
    return recipe


def write_execution(path: Path, execution: Execution) -> None:
    write_sealed(path / "execution.json", execution.model_dump(mode="json"))


def read_execution(path: Path) -> Execution:
    """Raises UserError if the file is missing, damaged, or holds what cannot be."""
    try:
        execution = Execution.model_validate(read_sealed(path / "execution.json"))
        torch.device(execution.device)
    except (ValidationError, RuntimeError):
        raise UserError(f"{path / 'execution.json'} is damaged; restore it, or train anew in another --out") from None
    return execution


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Say that a run has spent its budget, and what it came to: `spent` and `validation`."""
    write_sealed(path / "finished.json", dict(result))


def read_result(path: Path, checkpoint: Checkpoint) -> dict[str, Any] | None:
    """What a run came to; None unless its budget was spent, and `checkpoint` is that of its last step."""
    if not (path / "finished.json").exists():
        return None
    result = read_sealed(path / "finished.json")
    try:
        steps, loss = result["spent"]["steps"], result["validation"]["loss"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path / 'finished.json'} is damaged ({error!r}); delete it, and train once more") from None
    if not (loss is None or isinstance(loss, int | float)):
        raise UserError(f"{path / 'finished.json'} is damaged: its loss is no number; delete it, and train once more")
    return result if steps == checkpoint.step else None


def _is_under(difference: str, keys: tuple[str, ...]) -> bool:
    return any(difference.startswith((f"{key}:", f"{key}.")) for key in keys)
