"""GPT2LMHeadModel: learned positions, or any table of them, and a plain MLP.

A model without biases has biases of zero there; sinusoidal positions are a stored table, as long as the context.
"""

from collections.abc import Iterator
from typing import Any

import torch

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
from daybreak.exchange.pieces import Constant, Piece, layer, same, transposed, zeros
from daybreak.model.gpt import ModelConfig
from daybreak.model.position import LearnedPositionConfig, SinusoidalPositionConfig, sinusoids

_EMBEDDING = "transformer.wte.weight"
_TABLE = "transformer.wpe.weight"


def _describe(config: ModelConfig) -> dict[str, Any]:
    require_only(
        config,
        "bias", "mlp.activation", "mlp.hidden", "norm.eps", "head.tied", "position.learned_scale",
        position__kind=("learned", "sinusoidal", "none"),
    )  # fmt: skip
    return {
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_embd": config.dim,
        "n_positions": config.context,
        "n_ctx": config.context,
        "n_inner": config.mlp.hidden,
        "vocab_size": config.vocab_size,
        "activation_function": activation(config),
        "layer_norm_epsilon": config.norm.eps,
        "tie_word_embeddings": config.head.tied,
        "initializer_range": config.initialisation.std,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config.dropout),
    }


def _recognise(settings: Settings) -> ModelConfig:
    require(settings, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    return recognised(
        layers=settings["n_layer"],
        heads=settings["n_head"],
        dim=settings["n_embd"],
        context=settings["n_positions"],
        vocab_size=settings["vocab_size"],
        dropout=common_dropout(settings, "resid_pdrop", "embd_pdrop", "attn_pdrop"),
        mlp={
            "kind": "plain",
            "activation": known_activation(settings.get("activation_function", "gelu_new")),
            "hidden": settings.get("n_inner") or 4 * settings["n_embd"],
        },
        norm={"eps": settings.get("layer_norm_epsilon", 1e-5)},
        head={"tied": settings.get("tie_word_embeddings", True)},
    )


def _pieces(config: ModelConfig) -> Iterator[Piece | Constant]:
    D, bias = config.dim, config.bias
    yield same("embedding.weight", (_EMBEDDING,))
    yield _positions(config)
    for number in range(config.layers):
        ours, theirs = f"blocks.{number}", f"transformer.h.{number}"
        linear = {
            "attention.qkv": ("attn.c_attn", 3 * D),
            "attention.output": ("attn.c_proj", D),
            "mlp.up": ("mlp.c_fc", config.mlp.hidden or 4 * D),
            "mlp.down": ("mlp.c_proj", D),
        }
        for name, (its, outputs) in linear.items():
            yield from layer(f"{ours}.{name}", f"{theirs}.{its}", transposed, bias=bias, zero_bias=(outputs,))
        for name, its in (("attention_norm", "ln_1"), ("mlp_norm", "ln_2")):
            yield from layer(f"{ours}.{name}", f"{theirs}.{its}", bias=bias, zero_bias=(D,))
    yield from layer("final_norm", "transformer.ln_f", bias=bias, zero_bias=(D,))
    if not config.head.tied:
        yield same("head.weight", ("lm_head.weight",))


def _positions(config: ModelConfig) -> Piece | Constant:
    T, D = config.context, config.dim
    if isinstance(config.position, LearnedPositionConfig):
        return same("position.weight", (_TABLE,))
    if not isinstance(config.position, SinusoidalPositionConfig):
        return zeros(_TABLE, T, D)
    table = sinusoids(torch.arange(T), D)
    if not config.position.learned_scale:
        return Constant(_TABLE, lambda: table)
    # The cosine at position 0 is 1, so the scale stands there.
    return Piece("position.scale", (_TABLE,), lambda scale: (scale * table,), lambda scaled: scaled[0, 1])


GPT2 = Carrier("gpt2", "GPT2LMHeadModel", _describe, _recognise, _pieces, "transformer.", _EMBEDDING)
