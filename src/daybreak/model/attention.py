"""Causal attention, and the one place that chooses its kernel.

Shape legend: B batch, T queries, S keys, D dim, H heads, G key/value heads, K head size.
"""

from functools import cache
from typing import TYPE_CHECKING, Any, Self, final

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from daybreak.configuration import Configuration
from daybreak.model.cache import KeyValues
from daybreak.model.dropout import dropout
from daybreak.model.initialise import linear_
from daybreak.model.mask import block_mask, dense_document_mask, dense_mask, document_block_mask
from daybreak.model.norm import rms_norm
from daybreak.model.position import (
    AlibiPositionConfig,
    Position,
    RotaryPositionConfig,
    alibi_slopes,
    rotary_tables,
    rotate,
)

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

_GATE_WIDTH = 32  # features that open a gate of value embeddings


@final
class AttentionConfig(Configuration):
    """What attention sees, and how.

    Attributes:
        kv_heads: key/value heads, shared by groups of query heads (Ainslie et al. 2023); all unless stated.
        qk_norm: normalise queries and keys by their root mean square (as Henry et al. 2020 with the L2 norm).
        windows: how far back each layer sees, itself included, repeated over the layers; 0 sees all.
        strides: behind its window a layer also sees every position a multiple of its stride away (Child et al. 2019,
            "Generating Long Sequences with Sparse Transformers", section 4.2, both heads in one); repeated likewise; 0
            sees none.
    """

    kv_heads: int | None = Field(default=None, gt=0)
    qk_norm: bool = False
    windows: tuple[int, ...] = (0,)
    strides: tuple[int, ...] = (0,)

    @model_validator(mode="after")
    def _layers_see(self) -> Self:
        windows, strides = self.windows, self.strides
        if any(window < 0 for window in windows) or not windows:
            raise ValueError(f"model.attention.windows = {list(windows)} must be lengths, or 0 for all")
        if any(stride < 0 for stride in strides) or not strides:
            raise ValueError(f"model.attention.strides = {list(strides)} must be distances, or 0 for none")
        if len(windows) != len(strides) and 1 not in (len(windows), len(strides)):
            raise ValueError(
                f"model.attention.strides = {list(strides)} must be one, or as many as model.attention.windows = "
                f"{list(windows)}"
            )
        for layer in range(max(len(windows), len(strides))):
            if strides[layer % len(strides)] and not windows[layer % len(windows)]:
                raise ValueError(
                    f"model.attention.strides = {list(strides)} needs a window in each layer that has a stride, but "
                    f"model.attention.windows = {list(windows)} is 0 there, which sees all already"
                )
        return self


@final
class Attention(nn.Module):
    """Multi-head causal self-attention: (B, T, D) to (B, T, D).

    Args:
        layer: counted from 0; selects the window, the stride and the cache.
        gated_values: values of a token, from outside, are added to those of its features, each head by its own gate.
        fused: use torch's fused kernels, where they can do it.
    """

    def __init__(
        self,
        config: AttentionConfig,
        position: Position,
        *,
        layer: int,
        dim: int,
        heads: int,
        bias: bool,
        dropout: float,
        gated_values: bool = False,
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.layer, self.heads, self.kv_heads = layer, heads, config.kv_heads or heads
        self.head_size, self.dropout, self.qk_norm = dim // heads, dropout, config.qk_norm
        self.fused = fused
        self.window = config.windows[layer % len(config.windows)]
        self.stride = config.strides[layer % len(config.strides)]
        self.sight = self.window, self.stride
        self.rotary_base = position.base if isinstance(position, RotaryPositionConfig) else None
        self.slopes = tuple(alibi_slopes(heads)) if isinstance(position, AlibiPositionConfig) else None
        self.qkv = nn.Linear(dim, (heads + 2 * self.kv_heads) * self.head_size, bias=bias)
        self.output = nn.Linear(dim, dim, bias=bias)
        self.value_gate = nn.Linear(min(dim, _GATE_WIDTH), self.kv_heads, bias=False) if gated_values else None

    @torch.no_grad()
    def initialise(self, seed: int, name: str, std: float, output_std: float) -> None:
        """Draw the weights; `output_std` is that of the projection back to the residual stream."""
        linear_(self.qkv, std, seed=seed, name=f"{name}.qkv")
        linear_(self.output, output_std, seed=seed, name=f"{name}.output")
        if self.value_gate is not None:
            self.value_gate.weight.zero_()

    def forward(
        self,
        x_BTD: Tensor,
        seeds_B: Tensor | None = None,
        cache: KeyValues | None = None,
        extra_BTE: Tensor | None = None,
        documents: "Tensor | BlockMask | None" = None,
    ) -> Tensor:
        """Attend among x_BTD, and to what `cache` holds in front of it; `seeds_B` turns dropout on.

        Args:
            extra_BTE: values (E = G K) to add, times twice a sigmoid of the first features, so that a gate begins at 1.
            documents: by `document_mask`; a token then sees its own alone.
        """
        B, T, D = x_BTD.shape
        q_BHTK, k_BGTK, v_BGTK = self._queries_keys_values(x_BTD, cache)
        if self.value_gate is not None and extra_BTE is not None:
            gates_BTG = 2 * torch.sigmoid(self.value_gate(x_BTD[..., : self.value_gate.in_features]))
            extra_BTGK = gates_BTG[..., None] * extra_BTE.view(B, T, self.kv_heads, self.head_size)
            v_BGTK = v_BGTK + extra_BTGK.transpose(1, 2).to(v_BGTK.dtype)
        if cache is not None:
            k_BGTK, v_BGTK = cache.extend(self.layer, k_BGTK, v_BGTK)
        y_BHTK = causal_attention(
            q_BHTK,
            k_BGTK,
            v_BGTK,
            window=self.window,
            stride=self.stride,
            slopes=self.slopes,
            dropout_rate=self.dropout,
            seeds_B=seeds_B,
            fused=self.fused,
            documents=documents,
        )
        y_BTD = y_BHTK.transpose(1, 2).reshape(B, T, D)
        return dropout(self.output(y_BTD), self.dropout, seeds_B, site=1)

    def largest_logit(self, x_BTD: Tensor, documents_B1TT: Tensor | None = None) -> Tensor:
        """The largest number that the softmax gets of any query in x_BTD and a key that it sees; a scalar.

        Scores are those of `plain_attention`, held for one row at a time.
        """
        q_BHTK, k_BGTK, _ = self._queries_keys_values(x_BTD, None)
        largest = [
            masked_scores(
                q_BHTK[[row]],
                k_BGTK[[row]],
                self.window,
                self.slopes,
                self.stride,
                None if documents_B1TT is None else documents_B1TT[[row]],
            ).amax()
            for row in range(len(x_BTD))
        ]
        return torch.stack(largest).amax()

    def _queries_keys_values(self, x_BTD: Tensor, cache: KeyValues | None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, H, T, K), and (B, G, T, K) twice; queries and keys normed and turned, as the softmax is to see them."""
        B, T, _ = x_BTD.shape
        H, G, K = self.heads, self.kv_heads, self.head_size
        qkv_BTNK = self.qkv(x_BTD).view(B, T, H + 2 * G, K)
        q_BHTK, k_BGTK, v_BGTK = qkv_BTNK.transpose(1, 2).split((H, G, G), dim=1)
        if self.qk_norm:
            q_BHTK, k_BGTK = rms_norm(q_BHTK, 1e-6), rms_norm(k_BGTK, 1e-6)
        if self.rotary_base is not None:
            cosines, sines = self._rotary_tables(T, cache, x_BTD.device)
            q_BHTK, k_BGTK = rotate(q_BHTK, cosines, sines), rotate(k_BGTK, cosines, sines)
        return q_BHTK, k_BGTK, v_BGTK

    def _rotary_tables(self, count: int, cache: KeyValues | None, device: torch.device) -> tuple[Tensor, Tensor]:
        """For the next `count` positions, (T, K/2) each; (B, 1, T, K/2) where they differ between rows."""
        assert self.rotary_base is not None
        if cache is None:
            return rotary_tables(0, count, self.head_size, self.rotary_base, device)
        places_BT = cache.places(count)
        if places_BT is None:
            return rotary_tables(cache.length, count, self.head_size, self.rotary_base, device)
        cosines, sines = rotary_tables(0, cache.capacity, self.head_size, self.rotary_base, device)
        return cosines[places_BT][:, None], sines[places_BT][:, None]

    def document_mask(self, places_BT: Tensor, seeds_B: Tensor | None) -> "Tensor | BlockMask":
        """What `forward` takes to keep documents apart, alike for layers of one `sight`.

        Args:
            places_BT: of tokens in their documents, by `mask.document_places`.
            seeds_B: None where nothing is to be dropped.
        """
        plain = not self.fused or (self.dropout and seeds_B is not None)
        if places_BT.is_cuda and torch.is_grad_enabled() and not plain:
            return document_block_mask(places_BT, self.window, self.stride)
        return dense_document_mask(places_BT)


def causal_attention(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    *,
    window: int = 0,
    stride: int = 0,
    slopes: tuple[float, ...] | None = None,
    dropout_rate: float = 0.0,
    seeds_B: Tensor | None = None,
    fused: bool = True,
    documents: "Tensor | BlockMask | None" = None,
) -> Tensor:
    """Attend from the last T of S positions to those not after them: (B, H, T, K).

    Args:
        window: how far back a position sees, itself included; 0 sees all.
        stride: of those behind the window it sees the ones at multiples of this distance; 0 sees none.
        slopes: ALiBi's, one a head.
        seeds_B: seeds the dropout of attention weights; None drops nothing.
        fused: False writes it out, always.
        documents: where a position sees another of its document, (B, 1, T or 1, S), or blocks that say all it sees.
    """
    T, S = q_BHTK.shape[2], k_BGSK.shape[2]
    grouped = q_BHTK.shape[1] != k_BGSK.shape[1]
    windowed = 0 < window < S
    if not (documents is None or isinstance(documents, Tensor)):
        return _flex_attention(q_BHTK, k_BGSK, v_BGSK, documents, slopes, grouped)
    if not fused or (dropout_rate and seeds_B is not None):
        return plain_attention(q_BHTK, k_BGSK, v_BGSK, window, slopes, dropout_rate, seeds_B, stride, documents)
    if T == 1 and windowed and not stride:  # the newest position needs no mask: it sees the last keys
        k_BGSK, v_BGSK = k_BGSK[:, :, -window:], v_BGSK[:, :, -window:]
        documents = None if documents is None else documents[..., -window:]
        S, windowed = window, False
    if slopes is None and not windowed and documents is None:
        if T == S:
            return F.scaled_dot_product_attention(q_BHTK, k_BGSK, v_BGSK, is_causal=True, enable_gqa=grouped)
        if T == 1:  # the newest position sees every key
            return F.scaled_dot_product_attention(q_BHTK, k_BGSK, v_BGSK, enable_gqa=grouped)
    # It compiles for each T: training has one, prompts many.
    if q_BHTK.is_cuda and T == S and torch.is_grad_enabled() and documents is None:
        blocks = block_mask(T, window if windowed else 0, stride, q_BHTK.device)
        return _flex_attention(q_BHTK, k_BGSK, v_BGSK, blocks, slopes, grouped)
    mask = dense_mask(T, S, window, slopes, q_BHTK.dtype, q_BHTK.device, stride)
    if documents is not None:
        mask = mask.masked_fill(~documents, float("-inf"))
    if not torch.is_grad_enabled():
        mask = mask.view(-1, *mask.shape[-3:])  # a CPU's fused kernel takes no mask of three dimensions
    return F.scaled_dot_product_attention(q_BHTK, k_BGSK, v_BGSK, attn_mask=mask, enable_gqa=grouped)


def plain_attention(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    window: int,
    slopes: tuple[float, ...] | None,
    dropout_rate: float = 0.0,
    seeds_B: Tensor | None = None,
    stride: int = 0,
    documents_B1TT: Tensor | None = None,
) -> Tensor:
    """The definition, written out; what every other path is tested against, and the path of dropout."""
    v_BHSK = v_BGSK.repeat_interleave(q_BHTK.shape[1] // v_BGSK.shape[1], dim=1)
    weights_BHTS = masked_scores(q_BHTK, k_BGSK, window, slopes, stride, documents_B1TT).softmax(-1)
    return dropout(weights_BHTS, dropout_rate, seeds_B, site=0).to(v_BHSK.dtype) @ v_BHSK


def masked_scores(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    window: int,
    slopes: tuple[float, ...] | None,
    stride: int = 0,
    documents_B1TT: Tensor | None = None,
) -> Tensor:
    """What the softmax gets, (B, H, T, S) in fp32: scaled products, with ALiBi's bias, -inf where nothing is seen."""
    T, S = q_BHTK.shape[2], k_BGSK.shape[2]
    k_BHSK = k_BGSK.repeat_interleave(q_BHTK.shape[1] // k_BGSK.shape[1], dim=1)
    scores_BHTS = (q_BHTK @ k_BHSK.mT).float() * q_BHTK.shape[-1] ** -0.5
    mask = dense_mask(T, S, window, slopes, torch.float32, q_BHTK.device, stride)
    if documents_B1TT is not None:
        mask = mask.masked_fill(~documents_B1TT, float("-inf"))
    masked_BHTS: Tensor = scores_BHTS + mask
    return masked_BHTS


def _flex_attention(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    seen: "BlockMask",
    slopes: tuple[float, ...] | None,
    grouped: bool,
) -> Tensor:
    """What blocks say, and ALiBi, without a dense mask (FlexAttention; CUDA only, since it has no backward on CPU)."""
    slopes_H = None if slopes is None else torch.tensor(slopes, device=q_BHTK.device)

    def lower_by_distance(score: Tensor, _b: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score if slopes_H is None else score - slopes_H[head] * (query - key)

    return _compiled_flex()(  # type: ignore[no-any-return]
        q_BHTK,
        k_BGSK,
        v_BGSK,
        score_mod=lower_by_distance if slopes_H is not None else None,
        block_mask=seen,
        enable_gqa=grouped,
    )


@cache
def _compiled_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)
