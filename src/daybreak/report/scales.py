"""Axes: their limits, ticks and units, for numbers from learning rates to FLOPs."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

import numpy as np

from daybreak.report.thin import Values
from daybreak.report.words import plainly, power

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.ticker import NullLocator

_FEW_TICKS = 5
_WIDE_ON_X, _WIDE_ON_Y = 1e7, 1e6  # from here on a tick is written as a power of ten
_AIR = 1.015  # behind the last point of an x axis
_TICKS_OF_A_DECADE = ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8), (1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1,))
_THOUSANDS = {1e3: "thousands", 1e6: "millions", 1e9: "billions", 1e12: "trillions"}
_TIMES = {1.0: "seconds", 60.0: "minutes", 3600.0: "hours", 86400.0: "days"}


@final
@dataclass(frozen=True)
class Scale:
    """One axis.

    Attributes:
        label: what is drawn along it, with its unit.
        unit: what values are divided by; limits and ticks are in it.
        names: of the ticks, where they are no numbers.
    """

    label: str
    limits: tuple[float, float]
    ticks: tuple[float, ...]
    unit: float = 1.0
    logarithmic: bool = False
    names: tuple[str, ...] = ()

    def apply(self, axis: "Axis") -> None:
        """Set an axis of matplotlib accordingly."""
        axis.axes.set(**{f"{axis.axis_name}scale": "log" if self.logarithmic else "linear"})  # type: ignore[attr-defined]
        axis.set_minor_locator(_nowhere())
        below = _WIDE_ON_Y if axis.axis_name == "y" else _WIDE_ON_X  # type: ignore[attr-defined]
        axis.set_ticks(list(self.ticks), labels=self.names or [plainly(tick, below) for tick in self.ticks])
        axis.axes.set(**{f"{axis.axis_name}lim": self.limits})  # type: ignore[attr-defined]

    @property
    def later_half(self) -> "Scale":
        """From the middle of a linear axis on."""
        low, high = self.limits
        return replace(_linear(self.label, (low + high) / 2, high), unit=self.unit)

    def logarithmic_from(self, low: float) -> "Scale":
        """A linear axis that begins at zero as one that begins at `low`, in values, and shows every decade alike."""
        low, high = low / self.unit, self.limits[1]
        return replace(self, limits=(low, high), ticks=_logarithmic_ticks(low, high), logarithmic=True)


def of_steps(largest: float) -> Scale:
    return _linear("steps", 0.0, _AIR * max(largest, 1.0))


def of_tokens(largest: float) -> Scale:
    unit = max((unit for unit in _THOUSANDS if unit <= largest), default=1.0)
    label = f"tokens ({_THOUSANDS[unit]})" if unit > 1 else "tokens"
    return _linear(label, 0.0, _AIR * max(largest, 1.0), unit)


def of_time(largest: float) -> Scale:
    """Of seconds."""
    unit = max((unit for unit in _TIMES if 2 * unit <= largest), default=1.0)
    return _linear(f"time ({_TIMES[unit]})", 0.0, _AIR * max(largest, 1e-3), unit)


def of_flops(largest: float) -> Scale:
    exponent = math.floor(math.log10(max(largest, 1.0)))
    return _linear(f"training FLOPs (× {power(exponent)})", 0.0, _AIR * max(largest, 1.0), 10.0**exponent)


def of_names(label: str, names: Sequence[str]) -> Scale:
    """Of things that stand one behind the other, as layers; of many, some are named."""
    step = -(-len(names) // 12)
    places = range(0, len(names), step)
    limits = (-0.5, len(names) - 0.5)
    return Scale(label, limits, tuple(map(float, places)), names=tuple(names[place] for place in places))


def linear(label: str, values: Iterable[Values], *, from_zero: bool = False) -> Scale:
    """For these values, with a little air around them; of very small or large ones, in a power of ten."""
    found = _finite(values)
    if not len(found):
        return _linear(label, 0.0, 1.0)
    low, high = (0.0 if from_zero else float(found.min())), float(found.max())
    air = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = (low if from_zero else low - air), high + air
    size = max(abs(low), abs(high))
    exponent = math.floor(math.log10(size))
    if -3 < exponent < 6:
        return _linear(label, low, high)
    return _linear(f"{label} (× {power(exponent)})", low, high, 10.0**exponent)


def logarithmic(label: str, values: Iterable[Values]) -> Scale:
    """For these values; linear where they are within a factor of two, or not all above zero."""
    values = list(values)
    found = _finite(values)
    if not len(found) or found.min() <= 0 or found.max() < 2 * found.min():
        return linear(label, values)
    low, high = float(found.min()), float(found.max())
    air = (high / low) ** 0.04
    low, high = low / air, high * air
    return Scale(label, (low, high), _logarithmic_ticks(low, high), logarithmic=True)


def _linear(label: str, low: float, high: float, unit: float = 1.0) -> Scale:
    low, high = low / unit, high / unit
    step = _nice((high - low) / _FEW_TICKS)
    first = math.ceil(low / step - 1e-9)
    ticks = tuple(round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1))
    return Scale(label, (low, high), ticks, unit)


def _nice(step: float) -> float:
    """The next larger of 1, 2, 2.5 and 5 times a power of ten."""
    base = 10.0 ** math.floor(math.log10(step))
    return next(factor * base for factor in (1, 2, 2.5, 5, 10) if factor * base >= step * (1 - 1e-9))


def _logarithmic_ticks(low: float, high: float) -> tuple[float, ...]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: Sequence[float] = ()
    for factors in _TICKS_OF_A_DECADE:
        ticks = [tick for decade in decades for factor in factors if low <= (tick := factor * 10.0**decade) <= high]
        if len(ticks) <= _FEW_TICKS + 2:
            return tuple(ticks)
    return tuple(ticks[:: -(-len(ticks) // _FEW_TICKS)])


def _finite(values: Iterable[Values]) -> Values:
    found = np.concatenate([np.empty(0), *values])
    return np.array(found[np.isfinite(found)])


def _nowhere() -> "NullLocator":
    from matplotlib.ticker import NullLocator

    return NullLocator()
