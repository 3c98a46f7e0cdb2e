"""What a run takes on some machine."""

from dataclasses import dataclass
from typing import final

from daybreak.planning.course import Pace
from daybreak.planning.memory import Memory
from daybreak.progress import human_bytes


@final
@dataclass(frozen=True)
class Size:
    """Bytes, and where the figure is from."""

    bytes: int
    how: str


@final
@dataclass(frozen=True)
class Machine:
    """What a run takes on some machine.

    Attributes:
        count: of devices.
        how: where the pace is from.
        memory: of each device, by part.
        total: of each device.
        windows_read: while the total was measured, of a corpus whose pages count in it; None where they do not.
        warnings: of memory.
    """

    name: str
    count: int
    pace: Pace
    how: str
    memory: Memory
    total: Size
    checkpoint: Size
    windows_read: int | None = None
    warnings: tuple[str, ...] = ()


def does_not_fit(what: str, taken: int, there: float, remedies: tuple[str, ...]) -> str:
    """What a person is told."""
    would = f"would do: {', or '.join(remedies)}" if remedies else "use a smaller model"
    return f"memory: {what} takes {human_bytes(taken)} of {human_bytes(int(there))}; {would}"
