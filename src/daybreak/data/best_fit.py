"""Best-fit decreasing: pieces of many sizes into few rows of one capacity."""

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]


def best_fit_decreasing(sizes: Numbers, capacity: int) -> Numbers:
    """The row of each piece, counted from 0: the largest first, each goes where it leaves the least room.

    Pieces of one size are placed together, since a row that takes one is the best for the next while it has room.
    """
    row_of = np.empty(len(sizes), dtype=np.int64)
    order = np.argsort(-sizes, kind="stable")
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r says that some row has room for r tokens, and no more
    placed = rows = 0
    distinct, counts = np.unique(sizes, return_counts=True)
    for size, count in zip(distinct[::-1].tolist(), counts[::-1].tolist(), strict=True):
        end = placed + count
        while placed < end:
            if not rooms >> size:
                opened = -(-(end - placed) // (capacity // size))
                with_room[capacity] = list(range(rows, rows + opened))
                rooms, rows = rooms | 1 << capacity, rows + opened
            fitting = rooms >> size
            room = size + (fitting & -fitting).bit_length() - 1
            each = room // size  # so many of them does a row of this room take
            used = min(len(with_room[room]), -(-(end - placed) // each))
            chosen = with_room[room][-used:]
            del with_room[room][-used:]
            if not with_room[room]:
                rooms &= ~(1 << room)
            now = min(end - placed, used * each)
            row_of[order[placed : placed + now]] = np.repeat(chosen, each)[:now]
            placed += now
            in_last = now - (used - 1) * each
            for left, these in ((room - each * size, chosen[:-1]), (room - in_last * size, chosen[-1:])):
                if these:
                    with_room[left] += these
                    rooms |= 1 << left
    return row_of
