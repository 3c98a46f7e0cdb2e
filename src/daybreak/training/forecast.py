"""The loss that a run will end with, from the losses it had so far.

Where the learning rate is a share s of its peak, the loss of a run follows about

    loss = L + A / T^alpha + g s l

where T is the sum of those shares so far (as in Tissue et al. 2024, "Scaling Law with Learning Rate Annealing"), and
the last term is what a high rate costs while it lasts, in proportion to the loss l. L and A are fitted to the run
itself, by least squares; alpha, g and how far off forecasts were, to runs that had ended (`fit/`).
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import NamedTuple, Self, final

_EARLIEST = 0.2  # progress from which a forecast is worth making
_LOOKED_BACK = 0.25  # of the progress, where what is fitted begins
_MOST_POINTS = 256
_FEWEST_POINTS = 8
_UNKNOWN_GAP = 0.05  # of the loss, by which validation may be off training until it was measured


@final
@dataclass(frozen=True)
class CurveLaw:
    """What is the same for all runs.

    Attributes:
        exponent, noise: alpha and g.
        bands: progress and half the width of a 95 % band in nats there, by progress.
    """

    exponent: float
    noise: float
    bands: tuple[tuple[float, float], ...]

    @classmethod
    @cache
    def fitted(cls) -> Self:
        """The law that comes with the package; `make fit` makes it again."""
        found = json.loads(files("daybreak").joinpath("laws.json").read_text(encoding="utf-8"))["curve"]
        return cls(found["exponent"], found["noise"], tuple((at, width) for at, width in found["bands"]))

    def band(self, progress: float) -> float:
        """Between those fitted, a straight line; before and behind them, the nearest."""
        (at, width), *rest = self.bands
        for next_at, next_width in rest:
            if progress < next_at:
                part = max(0.0, (progress - at) / (next_at - at))
                return width + part * (next_width - width)
            at, width = next_at, next_width
        return width


class Point(NamedTuple):
    """Some steps, one behind the other.

    Attributes:
        steps: how many.
        progress: at their end.
        trained: T, the sum of lr_share over progress until then.
        lr_share: their mean.
        loss: their mean.
    """

    steps: int
    progress: float
    trained: float
    lr_share: float
    loss: float


@final
@dataclass
class Forecast:
    """Hears every step, and keeps as much of it as a curve needs."""

    law: CurveLaw
    _points: list[Point] = field(default_factory=list)
    _steps_a_point: int = 1
    _above_training: float | None = None  # validation loss less the curve of the training loss

    def note_step(self, progress: float, share: float, lr_share: float, loss: float) -> None:
        """Hear of a step that took `share` of the budget from `progress` on."""
        points = self._points
        trained = (points[-1].trained if points else 0.0) + lr_share * share
        step = Point(1, progress + share, trained, lr_share, loss)
        if points and points[-1].steps < self._steps_a_point:
            points[-1] = _joined(points[-1], step)
        else:
            points.append(step)
        if len(points) > _MOST_POINTS:
            self._points = [_joined(*points[index : index + 2]) for index in range(0, len(points) - 1, 2)]
            self._points += points[len(points) // 2 * 2 :]
            self._steps_a_point *= 2

    def note_validation(self, loss: float) -> None:
        """Hear of a validation loss at the last step."""
        curve = self._curve()
        if curve is not None:
            self._above_training = loss - curve.at(self._points[-1].trained, self._points[-1].lr_share)

    def at_end(self, to_train: float, lr_share: float) -> tuple[float, float] | None:
        """The validation loss expected, and half the width of its 95 % band; None while it is too early.

        Args:
            to_train: the sum of shares of the peak learning rate over the progress that is left.
            lr_share: the last step's.
        """
        curve = self._curve()
        if curve is None or self._points[-1].progress < _EARLIEST:
            return None
        last = self._points[-1]
        loss, band = curve.at(last.trained + to_train, lr_share), self.law.band(last.progress)
        if self._above_training is None:
            return loss, math.hypot(band, _UNKNOWN_GAP * loss)
        return loss + self._above_training, band

    def _curve(self) -> "_Curve | None":
        """Fitted to the points since a quarter of the progress; None where they are too few."""
        if not self._points:
            return None
        begin = _LOOKED_BACK * self._points[-1].progress
        points = [point for point in self._points if point.progress > begin]
        return _Curve.fitted(points, self.law) if len(points) >= _FEWEST_POINTS else None


@final
@dataclass(frozen=True)
class _Curve:
    lowest: float  # L
    slope: float  # A
    exponent: float
    noise: float  # g l

    @classmethod
    def fitted(cls, points: Sequence[Point], law: CurveLaw) -> "_Curve | None":
        """By weighted least squares; None where all points are alike."""
        recent = points[-max(1, len(points) // 8) :]
        noise = law.noise * sum(point.steps * point.loss for point in recent) / sum(point.steps for point in recent)
        weights = [point.steps for point in points]
        x = [point.trained**-law.exponent for point in points]
        y = [point.loss - noise * point.lr_share for point in points]
        whole = sum(weights)
        mean_x = sum(w * each for w, each in zip(weights, x, strict=True)) / whole
        mean_y = sum(w * each for w, each in zip(weights, y, strict=True)) / whole
        spread = sum(w * (each - mean_x) ** 2 for w, each in zip(weights, x, strict=True))
        if not spread > 0:
            return None
        together = sum(w * (a - mean_x) * (b - mean_y) for w, a, b in zip(weights, x, y, strict=True))
        slope = together / spread
        return cls(mean_y - slope * mean_x, slope, law.exponent, noise)

    def at(self, trained: float, lr_share: float) -> float:
        return float(self.lowest + self.slope * trained**-self.exponent + self.noise * lr_share)


def _joined(first: Point, second: Point) -> Point:
    steps = first.steps + second.steps
    lr_share, loss = (
        (first.steps * getattr(first, name) + second.steps * getattr(second, name)) / steps
        for name in ("lr_share", "loss")
    )
    return Point(steps, second.progress, second.trained, lr_share, loss)
