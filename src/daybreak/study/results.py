"""What a study has come to: its trials, read from its folder, and each variant against its reference."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any, final

from daybreak.errors import UserError
from daybreak.files import read_sealed
from daybreak.folders import is_no
from daybreak.recipe import Recipe
from daybreak.study.design import Design, Variant
from daybreak.study.pace import Pace
from daybreak.study.statistics import PairedDifference, Verdict, adjusted, paired_difference, verdict
from daybreak.study.trials import Trial, read_trial

FORMAT = 1
STUDY, PACES, TUNED = "study.json", "paces.json", "tuned.json"


@final
@dataclass(frozen=True)
class Comparison:
    """A variant against its reference.

    Attributes:
        p_adjusted: for all comparisons of the study together.
    """

    variant: str
    reference: str
    difference: PairedDifference
    p_adjusted: float | None
    verdict: Verdict


@final
@dataclass(frozen=True)
class Study:
    """A study as far as it has come.

    Attributes:
        recipes: of each variant, without what is tuned.
        trials: by variant and seed, those that are done.
        paces: by variant; empty until they are measured.
        tuned: of each variant, the overrides it chose and the loss of each that was tried.
        torch, machine: on which it runs.
    """

    path: Path
    design: Design
    variants: Sequence[Variant]
    recipes: Mapping[str, Recipe]
    trials: Mapping[str, Mapping[int, Trial]]
    paces: Mapping[str, Pace]
    tuned: Mapping[str, Mapping[str, Any]]
    torch: str
    machine: str

    @property
    def missing(self) -> int:
        """Trials still to make."""
        return len(self.variants) * len(self.design.seeds) - sum(map(len, self.trials.values()))

    def losses(self, variant: str) -> dict[int, float]:
        """By seed, in nats a token; NaN where training diverged."""
        return {seed: trial.loss for seed, trial in self.trials[variant].items()}

    def mean_loss(self, variant: str) -> float:
        """Over seeds; NaN if any diverged or none is done."""
        losses = self.losses(variant)
        return fmean(losses.values()) if losses else math.nan

    def tokens_per_second(self, variant: str) -> float | None:
        """Measured by turns before the trials; where steps grow, in the trials."""
        recipe, trials = self.recipes[variant], self.trials[variant]
        if (recipe.curriculum is not None or recipe.batch.ramp is not None) and trials:
            return median(trial.tokens_per_second for trial in trials.values())
        return self.paces[variant].tokens_per_second if variant in self.paces else None

    @property
    def comparisons(self) -> list[Comparison]:
        """Each variant against its reference, where a seed of both is done; without a verdict until all are."""
        found = compare_all(
            {variant.name: variant.reference for variant in self.variants if variant.reference is not None},
            {variant.name: self.losses(variant.name) for variant in self.variants},
        )
        return [each if self._is_decided(each) else replace(each, verdict="unfinished") for each in found]

    def _is_decided(self, comparison: Comparison) -> bool:
        """Whether more seeds change nothing of a verdict, or all are done: who stops at a difference would find one."""
        done = {len(self.trials[name]) for name in (comparison.variant, comparison.reference)}
        return comparison.verdict == "diverged" or done == {len(self.design.seeds)}


def compare_all(references: Mapping[str, str], losses: Mapping[str, Mapping[int, float]]) -> list[Comparison]:
    """Each variant against its reference, with p adjusted for all of them.

    Args:
        references: by variant.
        losses: by variant and seed.
    """
    differences = {
        name: paired_difference(losses[name], losses[reference])
        for name, reference in references.items()
        if losses[name].keys() & losses[reference].keys()
    }
    p_values = adjusted([each.p for each in differences.values()])
    return [
        Comparison(name, references[name], difference, p, verdict(difference, p))
        for (name, difference), p in zip(differences.items(), p_values, strict=True)
    ]


def read_study(path: Path) -> Study:
    """Read a study's folder; one that is not finished as far as it is.

    Raises:
        UserError: it holds no study, or a damaged one.
    """
    if not (path / STUDY).is_file():
        raise is_no(path, "study")
    content = read_sealed(path / STUDY)
    if content.get("format") != FORMAT:
        raise UserError(
            f"{path / STUDY} has format {content.get('format')}, this version reads {FORMAT}; use the one that wrote it"
        )
    design = Design.of(content["design"], str(path))
    made = [Variant.model_validate(each) for each in content["variants"]]
    trials: dict[str, dict[int, Trial]] = {}
    for variant in made:
        found = {seed: read_trial(trial_folder(path, variant.name, seed)) for seed in design.seeds}
        trials[variant.name] = {seed: trial for seed, trial in found.items() if trial is not None}
    return Study(
        path=path,
        design=design,
        variants=made,
        recipes={name: Recipe.model_validate(recipe) for name, recipe in content["recipes"].items()},
        trials=trials,
        paces=read_paces(path) if (path / PACES).exists() else {},
        tuned=read_sealed(path / TUNED) if (path / TUNED).exists() else {},
        torch=content["torch"],
        machine=content["machine"],
    )


def read_paces(path: Path) -> dict[str, Pace]:
    """The pace of each variant, as measured before the first trial."""
    return {name: Pace(**content) for name, content in read_sealed(path / PACES).items()}


def trial_folder(path: Path, variant: str, seed: int) -> Path:
    """Where a trial's run lies."""
    return path / "trials" / variant / f"seed-{seed}"
