"""What a run reads, as windows: numbered rows of tokens with their successors, wherever they lie.

Shape legend: R rows, W tokens of a window.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt

from daybreak.data.hashing import Words
from daybreak.data.shards import TokenStream

IGNORED = -100  # a target that the loss does not count


class WindowRows(NamedTuple):
    """Inputs and their targets, (R, W) each, as int64; a target may be IGNORED."""

    inputs: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]


class Windows(ABC):
    """Windows of one length that can be read by their numbers, from 0 on.

    Attributes:
        window: tokens of each, W.
    """

    window: int

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def read(self, numbers: Words) -> WindowRows:
        """The windows of these numbers, each of which must be less than their count."""


@final
class StreamWindows(Windows):
    """Consecutive pieces of a stream, one behind the other; what is left at its end, less than one, is not read."""

    def __init__(self, stream: TokenStream, window: int) -> None:
        self._stream, self.window = stream, window

    def __len__(self) -> int:
        return windows_in(len(self._stream), self.window)

    def read(self, numbers: Words) -> WindowRows:
        tokens: npt.NDArray[Any] = self._stream.read_rows(numbers * np.uint64(self.window), self.window + 1)
        return WindowRows(tokens[:, :-1], tokens[:, 1:])


@final
class JoinedWindows(Windows):
    """Windows of several texts, numbered through, one text behind the other."""

    def __init__(self, parts: Sequence[Windows]) -> None:
        self._parts, self.window = parts, parts[0].window

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def read(self, numbers: Words) -> WindowRows:
        inputs = np.empty((len(numbers), self.window), dtype=np.int64)
        targets = np.empty_like(inputs)
        first = 0
        for part in self._parts:
            here = (numbers >= first) & (numbers < first + len(part))
            if here.any():
                inputs[here], targets[here] = part.read(numbers[here] - np.uint64(first))
            first += len(part)
        return WindowRows(inputs, targets)


def windows_in(tokens: int, window: int) -> int:
    """Windows of a stream, the last of which needs a successor too."""
    return max(0, tokens - 1) // window
