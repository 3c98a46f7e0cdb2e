"""A study, or runs compared, as one JSON document for scripts."""

from dataclasses import asdict
from typing import Any

from daybreak.study.results import Study
from daybreak.study.runs import ComparedRuns


def document(study: Study) -> dict[str, Any]:
    """All trials and all comparisons."""
    return {
        "base": study.design.base,
        "equal": study.design.held_equal,
        "seeds": list(study.design.seeds),
        "missing": study.missing,
        "variants": [
            {
                "name": variant.name,
                "reference": variant.reference,
                "overrides": list(variant.overrides),
                "tokens_per_second": study.tokens_per_second(variant.name),
                "pace": asdict(study.paces[variant.name]) if variant.name in study.paces else None,
                "tuned": study.tuned.get(variant.name),
                "trials": [asdict(trial) for trial in study.trials[variant.name].values()],
            }
            for variant in study.variants
        ],
        "comparisons": [asdict(each) for each in study.comparisons],
        "torch": study.torch,
        "machine": study.machine,
    }


def document_of_runs(compared: ComparedRuns) -> dict[str, Any]:
    """All groups and all comparisons."""
    return {
        "equal": compared.equal,
        "groups": [{**asdict(group), "recipe": group.recipe.model_dump(mode="json")} for group in compared.groups],
        "comparisons": [asdict(each) for each in compared.comparisons],
    }
