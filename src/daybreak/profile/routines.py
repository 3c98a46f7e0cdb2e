"""The routines that take most time, from torch's profiler."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, final

ROUTINES_SHOWN = 32


@final
@dataclass(frozen=True)
class Routine:
    """One routine over all its calls.

    Attributes:
        milliseconds: its own, without those it called.
        share: of the time of all routines on the same device.
    """

    name: str
    calls: int
    milliseconds: float
    share: float


def slowest(averages: Iterable[Any], attribute: str) -> list[Routine]:
    """The 32 routines with the most time of their own.

    Args:
        averages: of the profiler, one a routine, in microseconds.
        attribute: `self_cpu_time_total` or `self_device_time_total`.
    """
    times = [(float(getattr(each, attribute)), each) for each in averages]
    total = sum(time for time, _ in times)
    ranked = sorted((pair for pair in times if pair[0] > 0), key=lambda pair: -pair[0])
    return [Routine(each.key, each.count, time / 1000, time / total) for time, each in ranked[:ROUTINES_SHOWN]]
