"""Curves of any number of steps as a few hundred points, of which none hides what lies between them."""

from dataclasses import dataclass
from typing import Self, final

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


@final
@dataclass(frozen=True)
class Curve:
    """Points of a curve, (points,) each: where values were put together, their mean, and the lowest and highest.

    Attributes:
        x: mean place of the values.
        together: values that a point stands for, at most.
    """

    x: Values
    mean: Values
    low: Values
    high: Values
    together: int

    @classmethod
    def of(cls, x: Values, y: Values, *, points: int) -> Self:
        """`y` over `x`, of (values,) each, in at most so many points.

        As many neighbours stand together in each. What is not finite counts for nothing; a point of nothing else is NaN.
        """
        together = max(1, -(-len(x) // points))
        if together == 1:
            y = np.where(np.isfinite(y), y, np.nan)
            return cls(x, y, y, y, 1)
        firsts = np.arange(0, len(x), together)
        counts = np.diff(np.append(firsts, len(x)))
        good = np.isfinite(y)
        number = np.add.reduceat(good.astype(np.float64), firsts)
        total = np.add.reduceat(np.where(good, y, 0.0), firsts)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = total / number
        low = np.minimum.reduceat(np.where(good, y, np.inf), firsts)
        high = np.maximum.reduceat(np.where(good, y, -np.inf), firsts)
        low, high = (np.where(number > 0, each, np.nan) for each in (low, high))
        return cls(np.add.reduceat(x, firsts) / counts, mean, low, high, together)
