"""Classes with Llama's names and RMSNorm: rotary positions, a sequential residual, grouped heads.

LlamaForCausalLM is gated. Mistral adds a window; Qwen2 and Qwen3 windows by layers, Qwen3 a norm of queries and keys;
Arcee is not gated.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from daybreak.exchange.carrier import (
    Carrier,
    Settings,
    activation,
    common_dropout,
    known_activation,
    recognised,
    require,
    require_only,
)
from daybreak.exchange.pieces import Constant, MisfitError, Piece, layer, ones, same, stacked
from daybreak.exchange.rotary import read_rotary, rotary_settings
from daybreak.model.gpt import ModelConfig

EMBEDDING = "model.embed_tokens.weight"
_FREE = ("position.base", "attention.kv_heads", "mlp.activation", "mlp.hidden", "norm.eps", "head.tied")
_QK_EPS = 1e-6  # of our norm of queries and keys


def decoder_settings(config: ModelConfig) -> dict[str, Any]:
    """Settings that all classes with these names have."""
    return {
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.attention.kv_heads or config.heads,
        "head_dim": config.dim // config.heads,
        "hidden_size": config.dim,
        "intermediate_size": config.mlp.hidden,
        "max_position_embeddings": config.context,
        "vocab_size": config.vocab_size,
        "hidden_act": activation(config),
        "tie_word_embeddings": config.head.tied,
        "attention_dropout": config.dropout,
        "initializer_range": config.initialisation.std,
        **rotary_settings(config),
    }


def read_decoder(settings: Settings, *, mlp: str, act: str, tied: bool = False, **more: Any) -> ModelConfig:
    """The model that these settings describe.

    Args:
        mlp: kind of ours.
        act, tied: the class's own, where the settings do not say.
        more: parts of the model besides.
    """
    heads, dim = settings["num_attention_heads"], settings["hidden_size"]
    if (settings.get("head_dim") or dim // heads) * heads != dim:
        raise MisfitError(f"its {heads} heads of {settings['head_dim']} are not {dim} wide together")
    kv_heads = settings.get("num_key_value_heads") or heads
    attention = {"kv_heads": None if kv_heads == heads else kv_heads, **more.pop("attention", {})}
    return recognised(
        layers=settings["num_hidden_layers"],
        heads=heads,
        dim=dim,
        context=settings["max_position_embeddings"],
        vocab_size=settings["vocab_size"],
        head={"tied": settings.get("tie_word_embeddings", tied)},
        mlp={
            "kind": mlp,
            "activation": known_activation(settings.get("hidden_act", act)),
            "hidden": settings["intermediate_size"],
        },
        attention=attention,
        **{"position": read_rotary(settings), "dropout": common_dropout(settings, "attention_dropout"), **more},
    )


def attention_pieces(
    config: ModelConfig, ours: str, theirs: str, *, zero_bias: bool = False, optional: bool = False
) -> Iterator[Piece | Constant]:
    """Queries, keys and values.

    Args:
        zero_bias: theirs have biases, whether ours has one or not.
        optional: theirs may have none where ours has one.
    """
    K = config.dim // config.heads
    values = (config.attention.kv_heads or config.heads) * K
    rows = (config.heads * K, values, values)
    names = tuple(f"{theirs}.{name}_proj" for name in "qkv")
    zero = rows if zero_bias else ()
    yield from layer(ours, names, partial(stacked, rows=rows), bias=config.bias, zero_bias=zero, optional=optional)


def mlp_pieces(config: ModelConfig, ours: str, theirs: str, *, optional: bool) -> Iterator[Piece | Constant]:
    """Gate above value, or neither."""
    linear = partial(layer, bias=config.bias, optional=optional)
    hidden = config.mlp.hidden or 4 * config.dim
    if config.mlp.kind == "glu":
        halves = partial(stacked, rows=(hidden, hidden))
        yield from linear(f"{ours}.up", (f"{theirs}.gate_proj", f"{theirs}.up_proj"), halves)
    else:
        yield from linear(f"{ours}.up", f"{theirs}.up_proj")
    yield from linear(f"{ours}.down", f"{theirs}.down_proj")


def _pieces(config: ModelConfig, *, only_qkv_biased: bool = False, qk_norm: bool = False) -> Iterator[Piece | Constant]:
    """Of any class in this file.

    Args:
        only_qkv_biased: queries, keys and values always have biases there, other matrices never.
        qk_norm: it has weights there.
    """
    yield same("embedding.weight", (EMBEDDING,))
    for number in range(config.layers):
        ours, theirs = f"blocks.{number}", f"model.layers.{number}"
        attention = f"{theirs}.self_attn"
        yield from attention_pieces(config, f"{ours}.attention.qkv", attention, zero_bias=only_qkv_biased)
        yield from layer(f"{ours}.attention.output", f"{attention}.o_proj", bias=config.bias, optional=only_qkv_biased)
        yield from mlp_pieces(config, f"{ours}.mlp", f"{theirs}.mlp", optional=only_qkv_biased)
        if qk_norm:
            yield from (ones(f"{attention}.{name}_norm.weight", config.dim // config.heads) for name in "qk")
        yield from layer(f"{ours}.attention_norm", f"{theirs}.input_layernorm")
        yield from layer(f"{ours}.mlp_norm", f"{theirs}.post_attention_layernorm")
    yield from layer("final_norm", "model.norm")
    if not config.head.tied:
        yield same("head.weight", ("lm_head.weight",))


def _rms_decoder(config: ModelConfig, *free: str, mlp: str = "glu", **parts: Any) -> dict[str, Any]:
    """Settings of all classes in this file; of ours these may differ from the default."""
    require_only(config, *_FREE, *free, position__kind="rotary", norm__kind="rmsnorm", mlp__kind=mlp, **parts)
    return {**decoder_settings(config), "rms_norm_eps": config.norm.eps}


def _rms(settings: Settings) -> dict[str, Any]:
    return {"kind": "rmsnorm", "eps": settings.get("rms_norm_eps", 1e-6)}


def _describe_llama(config: ModelConfig, mlp: str = "glu") -> dict[str, Any]:
    settings = _rms_decoder(config, "bias", mlp=mlp)
    return {**settings, "attention_bias": config.bias, "mlp_bias": config.bias, "pretraining_tp": 1}


def _recognise_llama(settings: Settings, mlp: str = "glu", act: str = "silu") -> ModelConfig:
    bias = settings.get("attention_bias", False)
    require(settings, mlp_bias=bias)
    return read_decoder(settings, mlp=mlp, act=act, bias=bias, norm=_rms(settings))


def _describe_mistral(config: ModelConfig) -> dict[str, Any]:
    settings = _rms_decoder(config, "attention.windows", bias=False)
    if len(config.attention.windows) > 1:
        raise MisfitError("model.attention.windows that are not all alike")
    return {**settings, "sliding_window": config.attention.windows[0] or None}


def _recognise_mistral(settings: Settings) -> ModelConfig:
    if len(set(settings.get("layer_types") or ())) > 1:
        raise MisfitError("its windows are not all alike")
    attention = {"windows": (settings.get("sliding_window", 4096) or 0,)}
    return read_decoder(settings, mlp="glu", act="silu", bias=False, norm=_rms(settings), attention=attention)


def _describe_qwen2(config: ModelConfig, **parts: Any) -> dict[str, Any]:
    settings = _rms_decoder(config, "attention.windows", bias=False, **parts)
    windows = [config.attention.windows[layer % len(config.attention.windows)] for layer in range(config.layers)]
    sizes = set(windows) - {0}
    if len(sizes) > 1:
        raise MisfitError(f"model.attention.windows of {len(sizes)} lengths")
    return {
        **settings,
        "use_sliding_window": bool(sizes),
        "sliding_window": sizes.pop() if sizes else None,
        "layer_types": ["sliding_attention" if window else "full_attention" for window in windows],
    }


def _describe_qwen3(config: ModelConfig) -> dict[str, Any]:
    settings = _describe_qwen2(config, attention__qk_norm=True)
    if config.norm.eps != _QK_EPS:
        raise MisfitError(f"model.norm.eps = {config.norm.eps}, where its norm of queries and keys has the same one")
    return {**settings, "attention_bias": False}


def _recognise_qwen2(settings: Settings, **more: Any) -> ModelConfig:
    attention = {"windows": _windows(settings), **more.pop("attention", {})}
    return read_decoder(
        settings, mlp="glu", act="silu", norm=_rms(settings), attention=attention, **{"bias": True, **more}
    )


def _recognise_qwen3(settings: Settings) -> ModelConfig:
    require(settings, rms_norm_eps=_QK_EPS, attention_bias=False)
    return _recognise_qwen2({"head_dim": 128, **settings}, bias=False, attention={"qk_norm": True})


def _windows(settings: Settings) -> tuple[int, ...]:
    """Of each layer."""
    window = settings.get("sliding_window", 4096) if settings.get("use_sliding_window") else None
    layers = range(settings["num_hidden_layers"])
    kinds = settings.get("layer_types") or [
        "sliding_attention" if layer >= settings.get("max_window_layers", 28) else "full_attention" for layer in layers
    ]
    if set(kinds) - {"sliding_attention", "full_attention"} or len(kinds) != len(layers):
        raise MisfitError(f"its layer_types are {sorted(set(kinds))}")
    return tuple((window or 0) if kind == "sliding_attention" else 0 for kind in kinds)


LLAMA = Carrier("llama", "LlamaForCausalLM", _describe_llama, _recognise_llama, _pieces, "model.", EMBEDDING)
MISTRAL = Carrier("mistral", "MistralForCausalLM", _describe_mistral, _recognise_mistral, _pieces, "model.", EMBEDDING)
QWEN2 = Carrier(
    "qwen2",
    "Qwen2ForCausalLM",
    _describe_qwen2,
    _recognise_qwen2,
    partial(_pieces, only_qkv_biased=True),
    "model.",
    EMBEDDING,
)
QWEN3 = Carrier(
    "qwen3", "Qwen3ForCausalLM", _describe_qwen3, _recognise_qwen3, partial(_pieces, qk_norm=True), "model.", EMBEDDING
)
ARCEE = Carrier(
    "arcee",
    "ArceeForCausalLM",
    partial(_describe_llama, mlp="plain"),
    partial(_recognise_llama, mlp="plain", act="relu2"),
    _pieces,
    "model.",
    EMBEDDING,
)
