"""What a token sees: masks of attention, whole or by blocks.

Shape legend: B batch, T queries, S keys, H heads.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


def is_visible(distance: Tensor, window: int, stride: int) -> Tensor:
    """Whether a query sees the key `distance` positions before it."""
    causal = distance >= 0
    if not window:
        return causal
    near = distance < window
    return causal & (near | (distance % stride == 0) if stride else near)


@lru_cache(maxsize=16)
def dense_mask(
    T: int,
    S: int,
    window: int,
    slopes: tuple[float, ...] | None,
    dtype: torch.dtype,
    device: torch.device,
    stride: int = 0,
) -> Tensor:
    """What is added to scores: -inf where not seen, else ALiBi's -slope · distance or 0; (1 or H, T, S)."""
    distance_TS = torch.arange(S - T, S, device=device)[:, None] - torch.arange(S, device=device)
    hidden_TS = ~is_visible(distance_TS, window, stride)
    slopes_H11 = torch.tensor(slopes or (0.0,), device=device)[:, None, None]
    return (-slopes_H11 * distance_TS).masked_fill(hidden_TS, float("-inf")).to(dtype)


@lru_cache(maxsize=16)
def block_mask(length: int, window: int, stride: int, device: torch.device) -> "BlockMask":
    """Of FlexAttention."""
    from torch.nn.attention.flex_attention import create_block_mask

    def visible(_b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return is_visible(query - key, window, stride)

    return create_block_mask(visible, None, None, length, length, device=str(device))


def document_places(tokens_BT: Tensor, separator: int) -> Tensor:
    """Which token of its document each is, counted from 0: (B, T).

    Args:
        separator: what each document begins with. A row may begin within one, which counts from there.
    """
    place_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
    starts_BT = torch.where(tokens_BT == separator, place_T, 0).cummax(dim=1).values
    return place_T - starts_BT


def dense_document_mask(places_BT: Tensor) -> Tensor:
    """Where no document begins between a key and a query behind it, (B, 1, T, T); each sees itself.

    Args:
        places_BT: by `document_places`.
    """
    place_T = torch.arange(places_BT.shape[1], device=places_BT.device)
    return (place_T[:, None] - place_T <= places_BT[:, :, None])[:, None]


def document_block_mask(places_BT: Tensor, window: int, stride: int) -> "BlockMask":
    """Of FlexAttention, within documents; as `dense_document_mask` and `block_mask` together."""
    from torch.nn.attention.flex_attention import create_block_mask

    def visible(row: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query - key <= places_BT[row, query]) & is_visible(query - key, window, stride)

    B, T = places_BT.shape
    return create_block_mask(visible, B, None, T, T, device=str(places_BT.device))
