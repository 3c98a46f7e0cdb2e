"""Integer mixing: the source of every pseudo-random choice over data.

SplitMix64's finaliser (Steele, Lea, Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014): a bijection of 64-bit integers that scatters neighbouring inputs.
"""

from typing import overload

import numpy as np
import numpy.typing as npt

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15

Words = npt.NDArray[np.uint64]


@overload
def splitmix64(value: int) -> int: ...
@overload
def splitmix64(value: Words) -> Words: ...
def splitmix64(value: int | Words) -> int | Words:
    """Scatter an integer, or each of an array of them, over 64 bits."""
    if isinstance(value, int):
        value = (value + _GOLDEN) & _MASK
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
        return value ^ (value >> 31)
    with np.errstate(over="ignore"):
        value = value + np.uint64(_GOLDEN)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))
