"""A GPT trained with Daybreak, for transformers: written out, for reading and for use.

It keeps no keys and values: `generate` computes the whole text for each token. Names of tensors are Daybreak's.

Shape legend: B rows, T tokens, D dim, H heads, G key/value heads, K head size, V vocabulary.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from .configuration_daybreak import DaybreakConfig

GATE_WIDTH = 32  # features that open a gate of value embeddings
QK_EPS = 1e-6
ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
}


class Norm(nn.Module):
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019) over the last dimension."""

    def __init__(self, model: dict[str, Any], size: int) -> None:
        super().__init__()
        self.kind, self.eps = model["norm"]["kind"], model["norm"]["eps"]
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size)) if model["bias"] and self.kind == "layernorm" else None

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "layernorm":
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        return root_mean_square_norm(x, self.eps) * self.weight


def root_mean_square_norm(x: Tensor, eps: float) -> Tensor:
    return (x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + eps)).to(x.dtype)


class Attention(nn.Module):
    """Multi-head attention to what each token sees."""

    def __init__(self, model: dict[str, Any], layer: int) -> None:
        super().__init__()
        dim, bias, parts = model["dim"], model["bias"], model["attention"]
        self.heads, self.kv_heads = model["heads"], parts["kv_heads"] or model["heads"]
        self.window = parts["windows"][layer % len(parts["windows"])]
        self.stride = parts["strides"][layer % len(parts["strides"])]
        self.qk_norm, self.position = parts["qk_norm"], model["position"]
        self.qkv = nn.Linear(dim, (self.heads + 2 * self.kv_heads) * (dim // self.heads), bias=bias)
        self.output = nn.Linear(dim, dim, bias=bias)
        gated = layer in value_layers(model)
        self.value_gate = nn.Linear(min(dim, GATE_WIDTH), self.kv_heads, bias=False) if gated else None

    def forward(self, x_BTD: Tensor, places_BT: Tensor, real_BT: Tensor, values_BTE: Tensor | None) -> Tensor:
        """`places_BT` count the tokens of each row, `real_BT` says which are no padding."""
        B, T, D = x_BTD.shape
        H, G = self.heads, self.kv_heads
        q, k, v = self.qkv(x_BTD).view(B, T, H + 2 * G, D // H).transpose(1, 2).split((H, G, G), dim=1)
        if self.qk_norm:
            q, k = root_mean_square_norm(q, QK_EPS), root_mean_square_norm(k, QK_EPS)
        if self.position["kind"] == "rotary":
            q, k = (rotated(each, places_BT, self.position["base"]) for each in (q, k))
        if self.value_gate is not None and values_BTE is not None:
            gates_BTG = 2 * torch.sigmoid(self.value_gate(x_BTD[..., : self.value_gate.in_features]))
            v = v + (gates_BTG[..., None] * values_BTE.view(B, T, G, D // H)).transpose(1, 2)
        mask = self._mask(places_BT, real_BT, q.dtype)
        k, v = (each.repeat_interleave(H // G, dim=1) for each in (k, v))
        y_BHTK = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.output(y_BHTK.transpose(1, 2).reshape(B, T, D))

    def _mask(self, places_BT: Tensor, real_BT: Tensor, dtype: torch.dtype) -> Tensor:
        """What is added to scores, (B, 1 or H, T, T): -inf where not seen, else ALiBi's bias or 0."""
        distance_BTT = places_BT[:, :, None] - places_BT[:, None, :]
        order_T = torch.arange(places_BT.shape[1], device=places_BT.device)
        seen_BTT = (order_T[:, None] >= order_T) & real_BT[:, None, :]
        if self.window:
            near_BTT = distance_BTT < self.window
            seen_BTT = seen_BTT & (near_BTT | (distance_BTT % self.stride == 0) if self.stride else near_BTT)
        seen_BTT = seen_BTT | (order_T[:, None] == order_T)  # padding sees itself, so that its softmax is of something
        slopes = alibi_slopes(self.heads) if self.position["kind"] == "alibi" else [0.0]
        slopes_H11 = torch.tensor(slopes, device=places_BT.device)[:, None, None]
        return (-slopes_H11 * distance_BTT[:, None]).masked_fill(~seen_BTT[:, None], float("-inf")).to(dtype)


def rotated(x_BHTK: Tensor, places_BT: Tensor, base: float) -> Tensor:
    """Each pair (x[k], x[k + K/2]) turned by its place's angle (Su et al. 2021)."""
    K = x_BHTK.shape[-1]
    rates = base ** (-torch.arange(0, K, 2, device=x_BHTK.device, dtype=torch.float32) / K)
    angles = places_BT[:, None, :, None].float() * rates
    first, second = x_BHTK.float().chunk(2, dim=-1)
    turned = (first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin())
    return torch.cat(turned, dim=-1).to(x_BHTK.dtype)


def alibi_slopes(heads: int) -> list[float]:
    """Of Press et al. 2021, section 3, and their reference code for other numbers than powers of two."""
    lower = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8.0 * (i + 1) / lower) for i in range(lower)]
    return slopes + [2.0 ** (-4.0 * (i + 1) / lower) for i in range(0, 2 * (heads - lower), 2)]


class MLP(nn.Module):
    """Plain, or gated (Shazeer 2020)."""

    def __init__(self, model: dict[str, Any]) -> None:
        super().__init__()
        parts, dim, bias = model["mlp"], model["dim"], model["bias"]
        hidden, self.gated = parts["hidden"] or 4 * dim, parts["kind"] == "glu"
        self.activation = ACTIVATIONS[parts["activation"]]
        self.up = nn.Linear(dim, 2 * hidden if self.gated else hidden, bias=bias)
        self.down = nn.Linear(hidden, dim, bias=bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        if not self.gated:
            return self.down(self.activation(self.up(x_BTD)))
        gate, value = self.up(x_BTD).chunk(2, dim=-1)
        return self.down(self.activation(gate) * value)


class Block(nn.Module):
    """Attention and MLP, one behind the other or side by side."""

    def __init__(self, model: dict[str, Any], layer: int) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(model, layer), MLP(model)
        self.parallel = model["residual"] == "parallel"
        if self.parallel:
            self.norm = Norm(model, model["dim"])
        else:
            self.attention_norm, self.mlp_norm = Norm(model, model["dim"]), Norm(model, model["dim"])

    def forward(self, x_BTD: Tensor, *sight: Any) -> Tensor:
        if self.parallel:
            normed_BTD = self.norm(x_BTD)
            return x_BTD + self.mlp(normed_BTD) + self.attention(normed_BTD, *sight)
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), *sight)
        return x_BTD + self.mlp(self.mlp_norm(x_BTD))


class Learned(nn.Module):
    """A vector for each place."""

    def __init__(self, context: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(context, dim))

    def forward(self, places_BT: Tensor) -> Tensor:
        if int(places_BT.max()) >= len(self.weight):
            raise ValueError(f"{int(places_BT.max()) + 1} positions do not fit into a table of {len(self.weight)}")
        return F.embedding(places_BT, self.weight)


class Sinusoidal(nn.Module):
    """Sines and cosines of each place (Vaswani et al. 2017, section 3.5), times one learned scale if there is one."""

    def __init__(self, dim: int, learned_scale: bool) -> None:
        super().__init__()
        self.dim = dim
        self.scale = nn.Parameter(torch.ones(())) if learned_scale else None

    def forward(self, places_BT: Tensor) -> Tensor:
        steps = torch.arange(0, self.dim, 2, device=places_BT.device, dtype=torch.float32)
        angles = places_BT[..., None].float() * torch.exp(steps * (-math.log(10_000.0) / self.dim))
        table_BTD = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)
        return table_BTD if self.scale is None else self.scale * table_BTD


class NgramEmbedding(nn.Module):
    """The sum of the embeddings of the last n tokens, for each n; a table too small for all shares rows by a hash."""

    def __init__(self, lengths: list[int], rows: int, vocab_size: int, dim: int) -> None:
        super().__init__()
        self.lengths, self.words = lengths, vocab_size + 1  # the last one stands in front of the first token
        self.tables = nn.ModuleList(nn.Embedding(min(rows, self.words**length), dim) for length in lengths)

    def forward(self, tokens_BT: Tensor, places_BT: Tensor) -> Tensor:
        weights: list[Any] = [table.weight for table in self.tables]
        added = [
            F.embedding(self._rows(tokens_BT, places_BT, length, len(weight)), weight)
            for length, weight in zip(self.lengths, weights, strict=True)
        ]
        return torch.stack(added).sum(dim=0)

    def _rows(self, tokens_BT: Tensor, places_BT: Tensor, length: int, rows: int) -> Tensor:
        row_BT = torch.zeros_like(tokens_BT)
        for back in reversed(range(length)):
            word_BT = torch.where(places_BT >= back, tokens_BT.roll(back, dims=1), self.words - 1)
            row_BT = row_BT * self.words + word_BT
            if self.words**length > rows:
                row_BT = mixed(row_BT & 0xFFFFFFFF)
        return row_BT % rows


def mixed(value: Tensor) -> Tensor:
    """32-bit integers, scattered."""
    value = ((value >> 16) ^ value) * 0x45D9F3B & 0xFFFFFFFF
    value = ((value >> 16) ^ value) * 0x45D9F3B & 0xFFFFFFFF
    return (value >> 16) ^ value


class ValueEmbeddings(nn.Module):
    """A table of values for each of some layers."""

    def __init__(self, layers: list[int], vocab_size: int, width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleDict({str(layer): nn.Embedding(vocab_size, width) for layer in layers})

    def forward(self, tokens_BT: Tensor, layer: int) -> Tensor | None:
        return self.tables[str(layer)](tokens_BT) if str(layer) in self.tables else None


def value_layers(model: dict[str, Any]) -> list[int]:
    """The layers that have a table of values: all, or the last and from there every other."""
    every = {"none": 0, "alternate": 2, "all": 1}[model["lookup"]["values"]]
    return [layer for layer in range(model["layers"]) if every and (model["layers"] - 1 - layer) % every == 0]


class EmbeddingSkip(nn.Module):
    """What enters a layer is scaled, and so is the embedding that is added to it."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.residual_scale = nn.Parameter(torch.ones(layers))
        self.embedding_scale = nn.Parameter(torch.zeros(layers))


class Head(nn.Module):
    """Its own weight, if it does not read the embedding's; and the norm over logits, if there is one."""

    def __init__(self, model: dict[str, Any]) -> None:
        super().__init__()
        tied = model["head"]["tied"]
        self.weight = None if tied else nn.Parameter(torch.zeros(model["vocab_size"], model["dim"]))
        self.norm = Norm(model, model["vocab_size"]) if model["extra_norms"]["over_logits"] else None
        self.soft_cap = model["head"]["soft_cap"]

    def forward(self, x_BTD: Tensor, embedding_VD: Tensor) -> Tensor:
        logits_BTV = F.linear(x_BTD, embedding_VD if self.weight is None else self.weight)
        if self.norm is not None:
            logits_BTV = self.norm(logits_BTV)
        logits_BTV = logits_BTV.float()
        return logits_BTV if self.soft_cap is None else self.soft_cap * torch.tanh(logits_BTV / self.soft_cap)


class DaybreakForCausalLM(PreTrainedModel, GenerationMixin):
    """Tokens to logits of the next."""

    config_class = DaybreakConfig
    base_model_prefix = ""
    _supports_sdpa = True
    _no_split_modules = ["Block"]  # noqa: RUF012

    def __init__(self, config: DaybreakConfig) -> None:
        super().__init__(config)
        model = config.daybreak["model"]
        extra, lookup, position = model["extra_norms"], model["lookup"], model["position"]
        dim, vocab_size, layers = model["dim"], model["vocab_size"], model["layers"]
        self.embedding = nn.Embedding(vocab_size, dim)
        self.position: Learned | Sinusoidal | None = None
        if position["kind"] == "learned":
            self.position = Learned(model["context"], dim)
        elif position["kind"] == "sinusoidal":
            self.position = Sinusoidal(dim, position["learned_scale"])
        ngrams = lookup["ngrams"]
        self.ngrams = NgramEmbedding(ngrams, lookup["rows"], vocab_size, dim) if ngrams else None
        width = (model["attention"]["kv_heads"] or model["heads"]) * (dim // model["heads"])
        with_values = value_layers(model)
        self.values = ValueEmbeddings(with_values, vocab_size, width) if with_values else None
        self.skip = EmbeddingSkip(layers) if model["embedding_skip"] else None
        self.embedding_norm = Norm(model, dim) if extra["after_embedding"] else None
        self.blocks = nn.ModuleList(Block(model, layer) for layer in range(layers))
        self.final_norm = None if extra["shared"] else Norm(model, dim)
        self.head = Head(model)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **_: Any,
    ) -> CausalLMOutput:
        """Logits (B, T, V) in fp32, of the last `logits_to_keep` tokens or of all; the loss too where there are labels.

        Args:
            attention_mask: (B, T), 0 for padding.
        """
        real_BT = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        places_BT = (real_BT.cumsum(dim=1) - 1).clamp(min=0)
        x_BTD = self._features(input_ids, places_BT, real_BT.bool())
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits_BTV = self.head(x_BTD[:, kept], self.embedding.weight)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        return CausalLMOutput(loss=loss, logits=logits_BTV)

    def _features(self, tokens_BT: Tensor, places_BT: Tensor, real_BT: Tensor) -> Tensor:
        x_BTD = self.embedding(tokens_BT)
        if self.ngrams is not None:
            x_BTD = x_BTD + self.ngrams(tokens_BT, places_BT)
        if self.position is not None:
            x_BTD = x_BTD + self.position(places_BT).to(x_BTD.dtype)
        if self.embedding_norm is not None:
            x_BTD = self.embedding_norm(x_BTD)
        x0_BTD = x_BTD
        for layer, block in enumerate(self.blocks):
            if self.skip is not None:
                x_BTD = self.skip.residual_scale[layer] * x_BTD + self.skip.embedding_scale[layer] * x0_BTD
            values_BTE = None if self.values is None else self.values(tokens_BT, layer)
            x_BTD = block(x_BTD, places_BT, real_BT, values_BTE)
        final_norm = self.final_norm or self.embedding_norm
        assert final_norm is not None  # a final norm that is shared is the embedding's
        return final_norm(x_BTD)

    def prepare_inputs_for_generation(self, input_ids: Tensor, attention_mask: Any = None, **_: Any) -> dict[str, Any]:
        """All of the text, at each token."""
        return {"input_ids": input_ids, "attention_mask": attention_mask, "logits_to_keep": 1}

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embedding = value  # type: ignore[assignment]

    def get_output_embeddings(self) -> None:
        """None that transformers may change: a tied head reads the embedding, another has a tensor of its own."""
        return
