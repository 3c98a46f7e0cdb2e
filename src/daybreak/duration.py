"""Durations with a unit, such as `715 steps`, `4%`, `10B tokens`, `24h`.

Budgets, warm-ups, decays and intervals are all written this way, so that no bare number has
to be guessed at.
"""

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, final

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from daybreak.errors import UserError

_LEAST, _MOST = 1e-9, 1e30  # of what a run can be asked to spend


@final
class Unit(StrEnum):
    STEPS = "steps"
    TOKENS = "tokens"
    EPOCHS = "epochs"
    SECONDS = "s"
    PERCENT = "%"
    FLOPS = "flops"
    TIMES_PARAMETERS = "x params"
    DOLLARS = "$"


_SCALES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_SECONDS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}
_UNITS = {
    **dict.fromkeys(("step", "steps"), Unit.STEPS),
    **dict.fromkeys(("token", "tokens"), Unit.TOKENS),
    **dict.fromkeys(("epoch", "epochs"), Unit.EPOCHS),
    **dict.fromkeys(("flop", "flops", "FLOPs"), Unit.FLOPS),
    **dict.fromkeys(("x params", "xparams", "x parameters"), Unit.TIMES_PARAMETERS),
    "%": Unit.PERCENT,
}
_FORM = re.compile(r"(?P<dollar>\$?)\s*(?P<number>[0-9][0-9_]*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)\s*(?P<rest>.*)")
_EXAMPLES = "90s, 24h, 19073 steps, 10B tokens, 2 epochs, 20x params, $20, 4%"


@final
@dataclass(frozen=True)
class Duration:
    """An amount of one unit; seconds are the only unit of time kept."""

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: object) -> "Duration":
        """Read a duration. A bare whole number counts steps.

        Raises:
            ValueError: the text is no duration.
        """
        if isinstance(text, Duration):
            return text
        if isinstance(text, int) and not isinstance(text, bool):
            text = f"{text} steps"
        match = _FORM.fullmatch(text.strip()) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f"{text!r} is not a duration; examples: {_EXAMPLES}")
        amount = float(match["number"].replace("_", ""))
        if not math.isfinite(amount):
            raise ValueError(f"{text!r} is not a number that can be counted; examples: {_EXAMPLES}")
        rest = match["rest"].strip()
        if match["dollar"]:
            if rest:
                raise ValueError(f"{text!r} is not an amount of money; example: $20")
            return cls(_rounded(amount), Unit.DOLLARS)
        if not rest:
            rest = "steps"
        if rest in _SECONDS:
            return cls(_rounded(amount * _SECONDS[rest]), Unit.SECONDS)
        if rest in _UNITS:
            return cls(_rounded(amount), _UNITS[rest])
        scale, unit = _SCALES.get(rest[0]), rest[1:].strip()
        if scale is not None and unit in _UNITS:
            return cls(_rounded(amount * scale), _UNITS[unit])
        raise ValueError(f"{text!r} has no unit that is known; examples: {_EXAMPLES}")

    def __str__(self) -> str:
        if self.unit is Unit.SECONDS:
            for name, seconds in (("h", 3600), ("m", 60)):
                if self.amount >= seconds and self.amount % seconds == 0:
                    return f"{int(self.amount / seconds)}{name}"
        number = f"{self.amount:.12g}" if self.amount >= 1e15 or self.amount % 1 else f"{int(self.amount)}"
        if self.unit is Unit.DOLLARS:
            return f"${number}"
        tight = self.unit in (Unit.SECONDS, Unit.PERCENT, Unit.TIMES_PARAMETERS)
        return f"{number}{'' if tight else ' '}{self.unit.value}"


def _rounded(amount: float) -> float:
    """Twelve digits, as many as are written, so that what is written reads back the same."""
    return float(f"{amount:.12g}")


DurationField = Annotated[
    Duration,
    PlainValidator(Duration.parse),
    PlainSerializer(str),
    WithJsonSchema({"type": ["string", "integer"], "examples": _EXAMPLES.split(", ")}),
]


def parse_interval(value: object) -> Duration | None:
    """How often something happens: a duration in steps, tokens, seconds or percent, or `never`.

    Raises:
        ValueError: nothing of the kind.
    """
    if value is None or value == "never":
        return None
    interval = Duration.parse(value)
    if (
        interval.unit not in (Unit.STEPS, Unit.TOKENS, Unit.SECONDS, Unit.PERCENT)
        or not _LEAST < interval.amount < _MOST
    ):
        raise ValueError(f"{value!r} is no interval; use steps, tokens, a time or a percentage above 0, or never")
    return interval


IntervalField = Annotated[
    Duration | None,
    PlainValidator(parse_interval),
    PlainSerializer(lambda interval: "never" if interval is None else str(interval)),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["100 steps", "5%", "30m", "never"]}),
]


def human_seconds(seconds: float) -> str:
    """`75` becomes `1m 15s`; for messages and progress lines."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f}s" if seconds >= 10 else f"{seconds:.1f}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def human_dollars(dollars: float) -> str:
    """`$12.50`, and below ten cents two digits that count."""
    return f"${dollars:,.2f}" if dollars >= 0.1 else f"${dollars:.2g}"


def require_positive(duration: Duration, name: str) -> Duration:
    """Raises UserError for a duration of nothing, or of more than there can be."""
    if not _LEAST < duration.amount < _MOST and duration.amount > 0:
        raise UserError(f"{name} = {duration.amount:g} {duration.unit.value} is beyond all that can be counted")
    if duration.amount <= 0:
        raise UserError(f"{name} = {duration} spends nothing; it must be more than zero")
    return duration
