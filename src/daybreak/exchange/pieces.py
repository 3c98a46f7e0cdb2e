"""How the tensors of a model lie in a class of transformers: taken apart on the way out, put together on the way in.

Nothing is lost on either way: what was put together must come apart into the same tensors again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
Names = tuple[str, ...]


@final
class MisfitError(Exception):
    """A class of transformers cannot hold a model of ours, or ours cannot be one of its; the text is the reason."""


@final
@dataclass(frozen=True)
class Piece:
    """One tensor of ours, and the one or more of transformers that hold the same numbers.

    Attributes:
        apart: from ours to theirs.
        together: from theirs to ours.
        optional: a bias that theirs need not have, and is zero then.
    """

    ours: str
    theirs: Names
    apart: Callable[[Tensor], tuple[Tensor, ...]]
    together: Callable[..., Tensor]
    optional: bool = False


@final
@dataclass(frozen=True)
class Constant:
    """A tensor that the class of transformers has and our model does not: it must have this value."""

    theirs: str
    value: Callable[[], Tensor]


Pieces = Sequence[Piece | Constant]


def same(ours: str, theirs: Names) -> Piece:
    """The same tensor, once or several times."""
    return Piece(ours, theirs, lambda tensor: (tensor,) * len(theirs), lambda *tensors: tensors[0])


def transposed(ours: str, theirs: Names) -> Piece:
    """A matrix that is stored as (inputs, outputs); a vector is as it is."""

    def turned(tensor: Tensor) -> Tensor:
        return tensor.T if tensor.ndim == 2 else tensor

    return Piece(ours, theirs, lambda tensor: (turned(tensor),), turned)


def stacked(ours: str, theirs: Names, rows: tuple[int, ...]) -> Piece:
    """Several tensors, one above the other."""
    return Piece(ours, theirs, lambda tensor: torch.split(tensor, list(rows)), lambda *tensors: torch.cat(tensors))


def by_heads(ours: str, theirs: Names, heads: int, kv_heads: int) -> Piece:
    """Queries, keys and values in one: ours has all queries first, theirs each key/value head behind its queries."""
    group = heads // kv_heads

    def apart(tensor: Tensor) -> tuple[Tensor, ...]:
        by_head = torch.unflatten(tensor, 0, (heads + 2 * kv_heads, -1))
        q, k, v = torch.split(by_head, [heads, kv_heads, kv_heads])
        by_group = torch.cat((torch.unflatten(q, 0, (kv_heads, group)), k[:, None], v[:, None]), dim=1)
        return (by_group.flatten(0, 2),)

    def together(tensor: Tensor) -> Tensor:
        parts = torch.split(torch.unflatten(tensor, 0, (kv_heads, group + 2, -1)), [group, 1, 1], dim=1)
        return torch.cat([part.flatten(0, 2) for part in parts])

    return Piece(ours, theirs, apart, together)


def zeros(theirs: str, *shape: int) -> Constant:
    """What is added where ours adds nothing."""
    return Constant(theirs, lambda: torch.zeros(shape))


def ones(theirs: str, *shape: int) -> Constant:
    """The weight of a norm that has none in ours."""
    return Constant(theirs, lambda: torch.ones(shape))


def layer(
    ours: str,
    theirs: str | Names,
    lie: Callable[[str, Names], Piece] = same,
    *,
    bias: bool = False,
    zero_bias: tuple[int, ...] = (),
    optional: bool = False,
) -> Iterator[Piece | Constant]:
    """Weight and bias of a layer.

    Args:
        lie: how both of them lie.
        bias: whether ours has one, and so theirs.
        zero_bias: where ours has none and theirs have one, how long each is.
        optional: where ours has one, theirs may have none.
    """
    names = (theirs,) if isinstance(theirs, str) else theirs
    yield lie(f"{ours}.weight", tuple(f"{name}.weight" for name in names))
    if bias:
        yield replace(lie(f"{ours}.bias", tuple(f"{name}.bias" for name in names)), optional=optional)
    elif zero_bias:
        yield from (zeros(f"{name}.bias", length) for name, length in zip(names, zero_bias, strict=True))


def to_theirs(pieces: Pieces, ours: Weights) -> dict[str, Tensor]:
    """Our weights in fp32, by transformers' names."""
    placed = {piece.ours for piece in pieces if isinstance(piece, Piece)}
    if placed != ours.keys():
        raise KeyError(f"no place for {sorted(placed ^ ours.keys())[:3]}")
    theirs = {name: tensor for piece in pieces for name, tensor in _apart(piece, ours)}
    return {name: tensor.contiguous().clone() for name, tensor in theirs.items()}


def to_ours(every: Pieces, theirs: Weights) -> dict[str, Tensor]:
    """Their tensors in fp32, by our names.

    Raises:
        MisfitError: one is missing, or left over, or is not what our model takes it for.
    """
    pieces = [piece for piece in every if not _is_left_out(piece, theirs)]
    expected = {name for piece in pieces for name in _names(piece)}
    missing, left = sorted(expected - theirs.keys()), sorted(theirs.keys() - expected)
    if missing or left:
        raise MisfitError(
            " and ".join(
                f"{len(names)} tensors {what}, as {names[0]}"
                for names, what in ((missing, "are missing"), (left, "have no place in it"))
                if names
            )
        )
    ours: dict[str, Tensor] = {}
    for piece in pieces:
        names = _names(piece)
        try:
            if isinstance(piece, Piece):
                ours[piece.ours] = piece.together(*(theirs[name].float() for name in names)).contiguous()
            apart = list(_apart(piece, ours))
        except (RuntimeError, IndexError, ValueError):
            shapes = ", ".join(f"{name} {tuple(theirs[name].shape)}" for name in names)
            raise MisfitError(f"shapes do not fit into its sizes: {shapes}") from None
        for name, tensor in apart:
            if tensor.shape != theirs[name].shape:
                raise MisfitError(f"{name} has the shape {tuple(theirs[name].shape)}, not {tuple(tensor.shape)}")
            if not torch.allclose(tensor, theirs[name].float(), rtol=1e-6, atol=1e-7, equal_nan=True):
                raise MisfitError(f"{name} holds what our model has no place for")
    for piece in every:
        if isinstance(piece, Piece) and piece.ours not in ours:
            ours[piece.ours] = torch.zeros(len(ours[piece.ours.removesuffix("bias") + "weight"]))
    return ours


def _is_left_out(piece: Piece | Constant, theirs: Weights) -> bool:
    return isinstance(piece, Piece) and piece.optional and not any(name in theirs for name in piece.theirs)


def _names(piece: Piece | Constant) -> Names:
    return piece.theirs if isinstance(piece, Piece) else (piece.theirs,)


def _apart(piece: Piece | Constant, ours: Weights) -> Iterator[tuple[str, Tensor]]:
    if isinstance(piece, Constant):
        yield piece.theirs, piece.value()
    else:
        yield from zip(piece.theirs, piece.apart(ours[piece.ours].detach().float()), strict=True)
