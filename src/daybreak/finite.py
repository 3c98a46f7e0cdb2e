"""JSON has no NaN and no infinity: both are written as null, and null is read as NaN."""

import math
from typing import Any


def finite(value: Any) -> Any:
    """The same, with null for every number that JSON cannot hold, however deep it lies."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def or_nan(value: object) -> float:
    """What was read, as a number; NaN for null, and for whatever else is none."""
    return float(value) if isinstance(value, int | float) else math.nan
