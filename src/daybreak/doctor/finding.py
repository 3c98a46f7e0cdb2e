"""What a check found, and how it is worded."""

from dataclasses import dataclass
from typing import Literal, final

State = Literal["good", "lacking", "broken"]

_LONGEST = 200


@final
@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        found: what is here, or what is not.
        costs: what a lack costs and how it is mended; empty where all is good.
        broken: training cannot work at all.
    """

    found: str
    costs: str = ""
    broken: bool = False

    @property
    def state(self) -> State:
        if self.broken:
            return "broken"
        return "lacking" if self.costs else "good"


def in_a_line(error: object) -> str:
    """The first line of an error, not too long; its kind where it has no text."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(". ")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"
