"""Finished runs compared as a study would: those of one recipe but for the seed are one variant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, final

from daybreak.checkpoint import list_checkpoints, step_of
from daybreak.duration import Unit
from daybreak.errors import UserError
from daybreak.files import read_sealed
from daybreak.finite import or_nan
from daybreak.folders import is_a, is_no
from daybreak.identity import read_execution, read_recipe
from daybreak.recipe import Recipe
from daybreak.study.results import Comparison, compare_all
from daybreak.training.execution import Execution
from daybreak.training.metrics import read_metrics
from daybreak.training.spent import Spent


@final
@dataclass(frozen=True)
class FinishedRun:
    """What a finished run says of itself; its weights are not needed, and may be gone.

    Attributes:
        measured: tokens and bytes of held-out text that its loss is the mean over.
        identity: hashes of what it read.
    """

    path: Path
    recipe: Recipe
    execution: Execution
    spent: Spent
    loss: float
    measured: tuple[int, int]
    identity: Mapping[str, Any]


@final
@dataclass(frozen=True)
class Group:
    """Runs of one recipe.

    Attributes:
        name: of the first of their folders.
        losses: by seed, in nats a token on held-out text.
        tokens_per_second: the median over their steps.
        changes: settings that differ from the recipe of the first group: the value here, and there.
    """

    name: str
    recipe: Recipe
    losses: Mapping[int, float]
    tokens_per_second: float
    changes: Mapping[str, tuple[Any, Any]]


@final
@dataclass(frozen=True)
class ComparedRuns:
    """Groups of runs, each compared with the first.

    Attributes:
        equal: what all were given alike, in words.
    """

    equal: str
    groups: Sequence[Group]
    comparisons: Sequence[Comparison]


def compare_runs(paths: Sequence[Path]) -> ComparedRuns:
    """Compare finished runs by their seeds; those of the first run's recipe are the reference.

    Raises:
        UserError: one is not finished, all are of one recipe, or budgets, text, tokenizers or what was measured differ,
            so that their losses say nothing of their recipes.
    """
    runs = [_finished(path) for path in paths]
    for run in runs[1:]:
        _require_comparable(runs[0], run)
    by_recipe: dict[str, list[FinishedRun]] = {}
    for run in runs:
        by_recipe.setdefault(run.recipe.model_copy(update={"seed": 0}).fingerprint, []).append(run)
    if len(by_recipe) < 2:
        raise UserError("all these runs are of one recipe: there is nothing to compare")
    groups = [_group(alike, runs[0].recipe) for alike in by_recipe.values()]
    names = [group.name for group in groups]
    if len(set(names)) < len(names):
        raise UserError(f"two recipes have runs in folders of one name ({', '.join(names)}); rename one of them")
    comparisons = compare_all(dict.fromkeys(names[1:], names[0]), {group.name: group.losses for group in groups})
    unpaired = set(names[1:]) - {each.variant for each in comparisons}
    if unpaired:
        raise UserError(
            f"{', '.join(sorted(unpaired))}: no seed in common with {names[0]}, so nothing is paired; train both with "
            "the same seeds, as seed=1 and seed=2"
        )
    return ComparedRuns(_equal(runs[0]), groups, comparisons)


def _finished(path: Path) -> FinishedRun:
    """Raises UserError if there is no run, or it has not come to its end."""
    if not is_a("run", path):
        raise is_no(path, "run")
    recipe = read_recipe(path)
    result = read_sealed(path / "finished.json") if (path / "finished.json").is_file() else None
    steps = None if result is None else result["spent"]["steps"]
    if result is None or any(step_of(each) != steps for each in list_checkpoints(path / "checkpoints")[-1:]):
        raise UserError(
            f"{path} is not finished, and its loss before the end says nothing; "
            f"let it end first: daybreak train {path}/recipe.toml --out {path}"
        )
    found = result["validation"]
    return FinishedRun(
        path=path,
        recipe=recipe,
        execution=read_execution(path),
        spent=Spent(**result["spent"]),
        loss=or_nan(found["loss"]),
        measured=(found["tokens"], found["bytes"]),
        identity=read_sealed(path / "identity.json"),
    )


def _group(runs: Sequence[FinishedRun], base: Recipe) -> Group:
    losses: dict[int, float] = {}
    for run in runs:
        if run.recipe.seed in losses:
            raise UserError(f"{run.path} has the recipe and the seed of another of these runs; leave one of them out")
        losses[run.recipe.seed] = run.loss
    first = runs[0]
    rates = [
        record["tokens_per_second"] for run in runs for record in read_metrics(run.path / "metrics.jsonl", "train")
    ]
    return Group(first.path.resolve().name, first.recipe, losses, median(rates), _changes(first.recipe, base))


def _changes(recipe: Recipe, base: Recipe) -> dict[str, tuple[Any, Any]]:
    """Settings that differ, but for those that name a run, its text or its execution."""
    same = {key: getattr(base, key) for key in ("name", "description", "seed", "execution", "data")}
    ours, theirs = recipe.model_copy(update=same).settings, base.settings
    keys = sorted(ours.keys() | theirs.keys())
    return {key: (ours.get(key), theirs.get(key)) for key in keys if ours.get(key) != theirs.get(key)}


def _require_comparable(one: FinishedRun, other: FinishedRun) -> None:
    """Raises UserError with all that makes two losses incomparable."""
    reasons = [*_budgets_differ(one, other)]
    for key, what in (("tokenizer", "they have other tokenizers"), ("corpus", "they read other text")):
        if one.identity.get(key) != other.identity.get(key):
            reasons.append(what)
    if one.identity.get("mixture") != other.identity.get("mixture"):
        reasons.append("they read other mixtures")
    if one.measured != other.measured:
        told = ["{:,} tokens ({:,} bytes)".format(*run.measured) for run in (one, other)]
        reasons.append(f"their losses were measured on {told[0]} and {told[1]} of held-out text")
    if reasons:
        raise UserError(f"{one.path} and {other.path} do not compare: {'; '.join(reasons)}")


def _budgets_differ(one: FinishedRun, other: FinishedRun) -> list[str]:
    """Why what two runs could spend is not the same."""
    asked = [run.recipe.budget for run in (one, other)]
    spent = [run.spent for run in (one, other)]
    seconds = [run.recipe.budget_seconds for run in (one, other)]
    if seconds[0] is not None or seconds[1] is not None:
        counts = [run.recipe.counts for run in (one, other)]
        if seconds[0] != seconds[1] or counts[0] != counts[1]:
            return [f"their budgets are {asked[0]} ({counts[0]}) and {asked[1]} ({counts[1]})"]
        machines = [f"{run.execution.device}, {run.execution.threads} threads" for run in (one, other)]
        return [] if machines[0] == machines[1] else [f"they had equal time on {machines[0]} and {machines[1]}"]
    if asked[0].unit is Unit.FLOPS and asked[1].unit is Unit.FLOPS:
        return [] if asked[0] == asked[1] else [f"their budgets are {asked[0]} and {asked[1]}"]
    if spent[0].tokens != spent[1].tokens:
        return [f"they were trained on {spent[0].tokens:,} and {spent[1].tokens:,} tokens"]
    return []


def _equal(run: FinishedRun) -> str:
    """What all were given alike."""
    if run.recipe.budget.unit in (Unit.SECONDS, Unit.DOLLARS, Unit.FLOPS):
        return str(run.recipe.budget)
    return f"{run.spent.tokens:,} tokens"
