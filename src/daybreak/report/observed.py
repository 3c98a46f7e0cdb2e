"""A run as its folder shows it: read-only, without its lock, while it trains or long after."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, final

import numpy as np

from daybreak.checkpoint import Checkpoint, checkpoint_path
from daybreak.compose import mean_flops_per_token
from daybreak.errors import UserError
from daybreak.files import read_sealed, require_text
from daybreak.finite import or_nan
from daybreak.folders import is_a, is_no
from daybreak.identity import read_execution, read_recipe, read_result
from daybreak.model.gpt import count_parameters
from daybreak.recipe import Recipe
from daybreak.report.journal import Journal, read_journal
from daybreak.report.thin import Values
from daybreak.training.execution import Execution

_MOST_LAST_STEPS = 200
Along = Literal["steps", "tokens", "time", "flops"]


@final
@dataclass(frozen=True)
class Observed:
    """What a run's folder says.

    Attributes:
        name: of the run, unlike that of every other on the page.
        execution: None if the run came to no step.
        result: what it came to; None until its budget is spent.
        step_seconds: of each step, where the time is not the clock's but that of a pace that a study measured.
    """

    path: Path
    name: str
    recipe: Recipe
    identity: Mapping[str, Any]
    execution: Execution | None
    result: Mapping[str, Any] | None
    journal: Journal
    step_seconds: float | None = None

    @cached_property
    def flops(self) -> Values:
        """Of training, up to and with each step: as recorded, else by the row lengths that steps had."""
        columns = self.journal.columns
        if len(self.journal) and np.isfinite(columns["flops"]).all():
            return columns["flops"]
        lengths = np.where(np.isfinite(columns["length"]), columns["length"], self.recipe.row_length)
        per_token = {length: mean_flops_per_token(self.recipe, int(length)) for length in np.unique(lengths)}
        tokens = np.diff(columns["tokens"], prepend=0.0)
        return np.cumsum(tokens * np.array([per_token[length] for length in lengths.tolist()]))

    def along(self, axis: Along) -> Values:
        """Steps, tokens, seconds or FLOPs at each step."""
        match axis:
            case "steps":
                return self.journal.steps
            case "tokens":
                return self.journal.columns["tokens"]
            case "time" if self.step_seconds is not None:
                return self.journal.steps * self.step_seconds
            case "time":
                return self.journal.columns["elapsed_seconds"]
            case "flops":
                return self.flops

    def at(self, steps: Values, axis: Along) -> Values:
        """The same at some steps; at what is measured behind a step, as a validation, the step's own end."""
        return steps if axis == "steps" else self.journal.at(steps, self.along(axis))

    @cached_property
    def validations(self) -> list[dict[str, Any]]:
        return self.journal.of_kind("validation")

    @property
    def sources(self) -> list[str]:
        """Corpora of the mixture that validation tells apart."""
        return list(dict.fromkeys(name for record in self.validations for name in record.get("sources", {})))

    @cached_property
    def parameters(self) -> int:
        return count_parameters(self.recipe.model)

    def last(self, column: str) -> float | None:
        """The last step's; None before any step."""
        values = self.journal.columns[column]
        return float(values[-1]) if len(values) else None

    @property
    def seconds(self) -> float | None:
        """From process start, over all sittings, until the last step or the validation behind it."""
        ends = [self.last("elapsed_seconds"), *(record.get("elapsed_seconds") for record in self.validations[-1:])]
        return max((end for end in ends if isinstance(end, int | float)), default=None)

    @property
    def seconds_in_steps(self) -> float:
        return float(np.nansum(self.journal.columns["milliseconds"])) / 1000

    @property
    def dollars(self) -> float | None:
        """What it cost so far; None without a price."""
        if self.recipe.price is None or self.seconds is None:
            return None
        return self.recipe.price * self.seconds / 3600

    @property
    def progress(self) -> float | None:
        """The share of the budget that is spent."""
        before, share = self.last("progress"), self.last("progress_share")
        return None if before is None or share is None else min(1.0, before + share)

    @property
    def final_loss(self) -> float | None:
        """Validation loss: at the end of the budget, else the newest."""
        if self.result is not None:
            return or_nan(self.result["validation"]["loss"])
        return None if not self.validations else or_nan(self.validations[-1].get("loss"))

    @property
    def bits_per_byte(self) -> float | None:
        if self.result is not None:
            return or_nan(self.result["validation"].get("bits_per_byte"))
        return None if not self.validations else or_nan(self.validations[-1].get("bits_per_byte"))

    @property
    def last_steps(self) -> int:
        """Over which a training loss is averaged: 200, and of a short run the last tenth, without its descent."""
        return max(1, min(_MOST_LAST_STEPS, len(self.journal) // 10))

    @property
    def last_losses(self) -> Values:
        """Training losses of those steps, where they have one."""
        losses = self.journal.columns["loss"][-self.last_steps :]
        return losses[np.isfinite(losses)]


def observe(path: Path, name: str) -> Observed:
    """Read a run's folder.

    Raises:
        UserError: it is no run, or what identifies it is damaged.
    """
    require_text(path)
    if not is_a("run", path):
        raise is_no(path, "run", "study")
    journal = read_journal(path / "metrics.jsonl")
    last = Checkpoint(checkpoint_path(path / "checkpoints", int(journal.steps[-1]) if len(journal) else 0), {})
    return Observed(
        path,
        name,
        read_recipe(path),
        read_sealed(path / "identity.json"),
        read_execution(path) if (path / "execution.json").exists() else None,
        read_result(path, last),
        journal,
    )


def names_of(paths: list[Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart.

    Raises:
        UserError: a run is given twice.
    """
    resolved = [path.resolve() for path in paths]
    for index, path in enumerate(resolved):
        if path in resolved[:index]:
            raise UserError(f"{paths[index]} is given twice; give each run once")
    for parts in range(1, max(len(path.parts) for path in resolved) + 1):
        names = ["/".join(path.parts[-parts:]) for path in resolved]
        if len(set(names)) == len(names):
            break
    return names
