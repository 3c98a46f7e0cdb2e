"""The merges of a byte-pair encoding, as transformers and others keep them, from its table of ranks.

Ours joins, of all neighbours that are a token together, those with the lowest rank. Theirs is a list of pairs, in their
order. Both do the same where each token is joined from exactly two that the lower ranks make of it: inside its bytes
nothing else can then come to lie side by side.
"""

from collections.abc import Mapping
from itertools import pairwise

from daybreak.exchange.pieces import MisfitError


def merges_of(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pair that each token of more than one byte is joined from, by rank.

    Raises:
        MisfitError: a token is joined from more than two, so that no such list does the same.
    """
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            parts = _joined(token, ranks, below=rank)
            if len(parts) != 2:
                raise MisfitError(f"its token {token!r} is not joined from two others of lower rank")
            merges.append((parts[0], parts[1]))
    return merges


def _joined(token: bytes, ranks: Mapping[bytes, int], below: int) -> list[bytes]:
    """What the ranks below one make of some bytes."""
    parts = [token[place : place + 1] for place in range(len(token))]
    while True:
        pairs = [(ranks.get(left + right, below), place) for place, (left, right) in enumerate(pairwise(parts))]
        rank, place = min(pairs, default=(below, 0))
        if rank >= below:
            return parts
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
