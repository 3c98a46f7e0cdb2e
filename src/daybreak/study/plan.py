"""What a study is to do: its variants' recipes, each on its corpus, ready to become trials."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self, final

from daybreak.compose import build_budget, choose_execution, require_fitting_tokenizer
from daybreak.data.reading import Reading
from daybreak.data.shards import Corpus
from daybreak.duration import Duration, Unit
from daybreak.errors import UserError
from daybreak.executor import Workers, available_cores
from daybreak.recipe import Recipe
from daybreak.study.design import BASE, Design, Variant, budget_in_steps, settings_to_try, variants
from daybreak.study.pace import Pace
from daybreak.study.trials import Task
from daybreak.training.budget import Clock


@final
@dataclass(frozen=True)
class Plan:
    """A study and where it is made.

    Attributes:
        beside: the folder of the study's file.
        data: the corpus of variants that name none.
        recipes: by variant, on its corpus, without what is tuned.
        readings: what those read, by variant; every corpus is verified once.
        until: reading of the monotonic clock at which this sitting ends.
    """

    design: Design
    beside: Path
    data: Path | None
    out: Path
    workers: Workers
    variants: Sequence[Variant]
    recipes: Mapping[str, Recipe]
    readings: Mapping[str, Reading]
    until: float | None

    @classmethod
    def of(cls, file: Path, out: Path, data: Path | None, workers: Workers, until: float | None) -> Self:
        """Read the study's file and open what it reads.

        Raises:
            UserError: the design is not sound, a corpus is missing, or the variants do not compare.
        """
        design = Design.load(file)
        made = variants(design)
        read = cache(Corpus.open)
        recipes, readings = {}, {}
        for variant in made:
            recipe = _with_data(variant.recipe(design, file.parent), data)
            reading = Reading.open(recipe.data, read)
            _require_possible(variant.name, recipe, reading)
            recipes[variant.name] = _with_threads(recipe, workers).model_copy(update={"data": reading.placed})
            readings[variant.name] = reading
        _require_comparable(made, recipes, readings)
        for variant in made:  # a setting that cannot be tried is said before anything is
            for tried in settings_to_try(design):
                variant.with_overrides(tried).recipe(design, file.parent)
        on_gpu = choose_execution(recipes[BASE]).device != "cpu"
        if workers.engine == "here" and workers.count > 1 and on_gpu:
            raise UserError("one GPU makes one trial at a time: leave --workers out, or use --engine ray with --gpus")
        return cls(design, file.parent, data, out, workers, made, recipes, readings, until)

    @property
    def in_time(self) -> bool:
        """Whether this sitting goes on."""
        return self.until is None or time.monotonic() < self.until

    def task(
        self,
        variant: Variant,
        seed: int,
        out: Path,
        pace: Pace,
        *,
        tuned: Sequence[str] = (),
        budget: Duration | None = None,
    ) -> Task:
        """A trial: the variant's recipe with all that a trial fixes.

        Args:
            tuned: overrides that the variant chose, or tries.
            budget: the study's unless given.
        """
        recipe = self.recipes[variant.name]
        if tuned:
            changed = _with_threads(variant.with_overrides(tuned).recipe(self.design, self.beside), self.workers)
            recipe = changed.model_copy(update={"data": recipe.data})
        budget = budget or self.design.budget
        if budget.unit is Unit.SECONDS and self.design.clock == "pace":
            budget = budget_in_steps(budget.amount, pace.step_seconds)
        # A micro-batch that is tried out anew would make trials differ in more than their variant.
        execution = recipe.execution.model_copy(update={"micro_batch": pace.micro_batch})
        recipe = recipe.model_copy(update={"budget": budget, "seed": seed, "execution": execution})
        # On other machines another clock runs: there a sitting that is over begins no more trials.
        until = self.until if self.workers.engine == "here" else None
        return Task(variant.name, seed, out, recipe, self.design.validation, until, self.design.keep)


def _with_data(recipe: Recipe, data: Path | None) -> Recipe:
    return recipe if data is None or recipe.data.places else recipe.with_data(data)


def _with_threads(recipe: Recipe, workers: Workers) -> Recipe:
    """With a trial's share of the machine's cores, unless the recipe says how many."""
    share = workers.cores if workers.engine == "ray" else max(1, available_cores() // workers.count)
    execution = recipe.execution.model_copy(update={"threads": recipe.execution.threads or share})
    return recipe.model_copy(update={"execution": execution})


def _require_possible(name: str, recipe: Recipe, reading: Reading) -> None:
    """Raises UserError for a variant that does not fit its corpus, or whose budget is less than a step."""
    try:
        require_fitting_tokenizer(recipe, reading.tokenizer)
        build_budget(recipe, reading.pass_windows, Clock(0.0))
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def _require_comparable(
    made: Sequence[Variant], recipes: Mapping[str, Recipe], readings: Mapping[str, Reading]
) -> None:
    """Raises UserError for a variant that is its reference under another name, or whose losses count other tokens."""
    for variant in made:
        if variant.reference is None:
            continue
        reference = recipes[variant.reference].model_copy(update={"name": variant.name})
        if recipes[variant.name] == reference:
            raise UserError(f"{variant.name} changes nothing: {variant.reference} has these settings already")
        tokenizers = [readings[name].tokenizer for name in (variant.name, variant.reference)]
        if tokenizers[0].identity != tokenizers[1].identity:
            raise UserError(
                f"{variant.name} and {variant.reference} read corpora of different tokenizers ({tokenizers[0].name}, "
                f"{tokenizers[1].name}), whose losses do not compare"
            )
