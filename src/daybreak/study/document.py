"""A study as one JSON document, for scripts."""

import math
from dataclasses import asdict
from typing import Any

from daybreak.study.results import Study


def document(study: Study) -> dict[str, Any]:
    """All trials and all comparisons; what is no number is null."""
    content = {
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
    found: dict[str, Any] = finite(content)
    return found


def finite(value: Any) -> Any:
    """The same as JSON can hold it: keys are text, and what is no number is null."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
