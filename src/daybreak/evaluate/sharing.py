"""Which windows begin alike, so that what they share passes through the model once.

Windows with the same inputs are one row. Rows that begin alike, as the endings of one question do, form a family, whose
common prefix is computed once. Families of about one length make a batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

from daybreak.evaluate.windows import Window

_LEAST_PREFIX = 16  # tokens that are worth a pass of their own
_SPREAD = 8  # tokens by which prefixes of one batch may differ; the longer ones are cut


@final
@dataclass(frozen=True)
class Row:
    """Inputs of the model, and the windows that read them, by their places in the request."""

    inputs: tuple[int, ...]
    windows: tuple[int, ...]


@final
@dataclass(frozen=True)
class Family:
    """Rows whose first `shared` inputs are the same; 0 for a row that shares nothing."""

    rows: tuple[Row, ...]
    shared: int

    @property
    def longest(self) -> int:
        return max(len(row.inputs) for row in self.rows)

    def halves(self) -> tuple["Family", "Family"]:
        """The same rows in two families."""
        middle = len(self.rows) // 2
        parts = (self.rows[:middle], self.rows[middle:])
        one, other = (Family(part, self.shared if len(part) > 1 else 0) for part in parts)
        return one, other


def families(windows: Sequence[Window], most: int) -> list[Family]:
    """All windows, those that begin alike side by side.

    A row joins the family before it where that saves work: its prefix need not be computed again, but what the members
    have in common beyond it must.

    Args:
        most: tokens that a family may hold, its rows filled up to the longest.
    """
    found: list[Family] = []
    rows, shared, width = list[Row](), 0, 0
    for row in _rows(windows):
        common = _common(rows[-1].inputs, row.inputs) if rows else 0
        shared = shared if len(rows) > 1 else common
        common = min(common, shared)
        wider = max(width, len(row.inputs))
        saves = common >= _LEAST_PREFIX and common > len(rows) * (shared - common)
        if rows and saves and (len(rows) + 1) * wider <= most:
            shared, width = common, wider
        elif rows:
            found.append(Family(tuple(rows), shared if len(rows) > 1 else 0))
            rows, width = [], len(row.inputs)
        else:
            width = wider
        rows.append(row)
    if rows:
        found.append(Family(tuple(rows), shared if len(rows) > 1 else 0))
    return found


def batches(families: Sequence[Family], most: int) -> Iterator[list[Family]]:
    """Families of about one length, longest first: what does not fit into memory, and how long it takes, shows early.

    Args:
        most: tokens in a batch, its rows filled up to the longest; a larger family is a batch of its own.
    """
    batch, rows, width = list[Family](), 0, 0
    for family in sorted(families, key=lambda each: (each.shared, each.longest), reverse=True):
        more, wider = rows + len(family.rows), max(width, family.longest)
        differs = batch and (batch[0].shared - family.shared > _SPREAD or (batch[0].shared and not family.shared))
        if batch and (differs or more * wider > most):
            yield batch
            batch, more, wider = [], len(family.rows), family.longest
        batch.append(family)
        rows, width = more, wider
    if batch:
        yield batch


def _rows(windows: Sequence[Window]) -> Iterator[Row]:
    """The different inputs in order, so that those that begin alike follow one another."""
    readers: dict[tuple[int, ...], list[int]] = {}
    for index, window in enumerate(windows):
        readers.setdefault(window.inputs, []).append(index)
    for inputs in sorted(readers):
        yield Row(inputs, tuple(readers[inputs]))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two rows begin with alike."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))
