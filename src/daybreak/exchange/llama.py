"""Classes with Llama's names and RMSNorm: rotary positions, a sequential residual, grouped heads.

LlamaForCausalLM is gated. Mistral adds a window; Qwen2 and Qwen3 windows by layers, Qwen3 a norm of queries and keys;
Arcee is not gated.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from daybreak.exchange.carrier import Carrier, Settings, require, require_only
from daybreak.exchange.decoder import EMBEDDING, FREE, attention_pieces, decoder_settings, mlp_pieces, read_decoder
from daybreak.exchange.pieces import Constant, MisfitError, Piece, layer, ones, same
from daybreak.model.gpt import ModelConfig

_QK_EPS = 1e-6  # of our norm of queries and keys


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
    require_only(config, *FREE, *free, position__kind="rotary", norm__kind="rmsnorm", mlp__kind=mlp, **parts)
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


def _describe_qwen2(config: ModelConfig, *, qk_norm: bool = False) -> dict[str, Any]:
    settings = _rms_decoder(config, "attention.windows", bias=False, attention__qk_norm=qk_norm)
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


def _recognise_qwen2(settings: Settings) -> ModelConfig:
    attention = {"windows": _windows(settings)}
    return read_decoder(settings, mlp="glu", act="silu", norm=_rms(settings), attention=attention)


def _describe_qwen3(config: ModelConfig) -> dict[str, Any]:
    settings = _describe_qwen2(config, qk_norm=True)
    if config.norm.eps != _QK_EPS:
        raise MisfitError(f"model.norm.eps = {config.norm.eps}, where its norm of queries and keys has the same one")
    return {**settings, "attention_bias": False}


def _recognise_qwen3(settings: Settings) -> ModelConfig:
    require(settings, rms_norm_eps=_QK_EPS, attention_bias=False)
    settings = {"head_dim": 128, **settings}
    attention = {"windows": _windows(settings), "qk_norm": True}
    return read_decoder(settings, mlp="glu", act="silu", bias=False, norm=_rms(settings), attention=attention)


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
