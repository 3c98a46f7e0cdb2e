"""The family `daybreak-dN`: the depth N is the one dial, all else follows from it.

The manner is nanochat's `--depth`. The rules: 96 of width for each layer and a head for each layer; all learning rates
fall with the third root of the width, nearly as sweeps at three widths found, and the head's with its root besides; the
batch grows with the fourth root of the run's FLOPs, which lies between what DeepSeek LLM (arXiv 2401.02954, 0.33) and
Bergsma et al. (arXiv 2505.13738, 0.2) found. How far they hold is measured in `docs/findings.md`.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

_NAME = re.compile(r"daybreak-d([1-9][0-9]?)")
DEEPEST = 48
_WIDTH_OF_A_LAYER = 96
_REFERENCE_WIDTH = 192  # of daybreak-small, where the learning rates were found
_LR, _ADAM_LR, _EMBEDDING_LR = 0.02, 3e-3, 5e-2
_SMALLEST_BATCH = 4096  # tokens; of daybreak-small
_FLOPS_OF_THAT_BATCH = 4e13
_FLOPS_OF_DEPTH_2 = 2.5e13  # for which it is about the best; another's grow with its sixth power
_CONTEXTS = ((6, 256), (10, 512), (DEEPEST, 1024))  # up to which depth, how many tokens


def member_name(depth: int) -> str:
    return f"daybreak-d{depth}"


def depth_of(name: str) -> int | None:
    """The depth that a recipe's name stands for; None if it is no member of the family."""
    match = _NAME.fullmatch(name)
    depth = int(match[1]) if match else None
    return depth if depth is not None and depth <= DEEPEST else None


def member(depth: int) -> dict[str, Any]:
    """The recipe of a depth, as a layer over `daybreak-small`."""
    dim = _WIDTH_OF_A_LAYER * depth
    context = next(context for deepest, context in _CONTEXTS if depth <= deepest)
    return {
        "extends": "daybreak-small",
        "name": member_name(depth),
        "description": f"The family's model of depth {depth}: {depth} layers of {dim}",
        "data": {"window": context},
        "batch": {"tokens": batch_tokens(_FLOPS_OF_DEPTH_2 * (depth / 2) ** 6)},
        "model": {"layers": depth, "heads": depth, "dim": dim, "context": context},
        "optimizer": learning_rates(dim),
    }


def learning_rates(width: int) -> dict[str, float]:
    """The family's, by their names in a recipe."""
    factor = lr_factor(width)
    return {
        "lr": round(_LR * factor, 6),
        "adam_lr": round(_ADAM_LR * factor * (_REFERENCE_WIDTH / width) ** 0.5, 6),
        "embedding_lr": round(_EMBEDDING_LR * factor, 6),
    }


def lr_factor(width: int) -> float:
    """By which all learning rates of a width differ from those of `daybreak-small`."""
    return float((_REFERENCE_WIDTH / width) ** (1 / 3))


def batch_tokens(flops: float) -> int:
    """Tokens a step for a run of so many FLOPs, a power of two."""
    wanted = _SMALLEST_BATCH * (flops / _FLOPS_OF_THAT_BATCH) ** 0.25
    return max(_SMALLEST_BATCH, 1 << round(math.log2(wanted)))


def is_like_a_member(recipe: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    """Whether a resolved recipe is of the family but for its sizes; the fitted law speaks of such alone.

    Args:
        base: `daybreak-small`, resolved.
    """
    sizes = ("layers", "heads", "dim", "context", "vocab_size")
    mine, theirs = (
        [
            {key: value for key, value in each["model"].items() if key not in sizes},
            *(each[part] for part in ("schedule", "prediction", "curriculum")),
        ]
        for each in (recipe, base)
    )
    rates = learning_rates(recipe["model"]["dim"])
    return mine == theirs and recipe["optimizer"] == {**base["optimizer"], **rates}
