"""Curves of any number of steps as a few hundred points, of which none hides what lies between them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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

        As many neighbours stand together in each. What is not finite counts for nothing; of nothing else, it is NaN.
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

    @classmethod
    def over(cls, curves: Sequence["Curve"], *, points: int) -> "Curve":
        """The mean of several curves at places that all of them reach, and the lowest and highest of them there."""
        first = max(curve.x[0] for curve in curves)
        last = min(curve.x[-1] for curve in curves)
        places = np.linspace(first, max(first, last), points)
        values = np.stack([np.interp(places, curve.x, curve.mean) for curve in curves])
        together = max(curve.together for curve in curves)
        return cls(places, values.mean(0), values.min(0), values.max(0), together)

    @property
    def has_band(self) -> bool:
        return bool((self.high > self.low).any())

    @property
    def without_band(self) -> "Curve":
        return replace(self, low=self.mean, high=self.mean)

    def since(self, x: float) -> "Curve":
        """Its later part."""
        chosen = self.x >= x
        return Curve(self.x[chosen], self.mean[chosen], self.low[chosen], self.high[chosen], self.together)
