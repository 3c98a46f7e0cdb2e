"""GPTNeoXForCausalLM: LayerNorm, rotary positions, a plain MLP, and a parallel residual or a sequential one.

In its parallel residual attention and MLP have a norm each; ours is in both places.
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
    require_only,
)
from daybreak.exchange.pieces import Constant, Piece, by_heads, layer, same
from daybreak.exchange.rotary import read_rotary, rotary_settings
from daybreak.model.gpt import ModelConfig

_EMBEDDING, _HEAD = "gpt_neox.embed_in.weight", "embed_out.weight"


def _describe(config: ModelConfig) -> dict[str, Any]:
    require_only(
        config,
        "bias", "residual", "position.base", "mlp.activation", "mlp.hidden", "norm.eps", "head.tied",
        position__kind="rotary",
    )  # fmt: skip
    rotary = rotary_settings(config)
    return {
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "hidden_size": config.dim,
        "intermediate_size": config.mlp.hidden,
        "max_position_embeddings": config.context,
        "vocab_size": config.vocab_size,
        "hidden_act": activation(config),
        "layer_norm_eps": config.norm.eps,
        "tie_word_embeddings": config.head.tied,
        "use_parallel_residual": config.residual == "parallel",
        "attention_bias": config.bias,
        "attention_dropout": config.dropout,
        "hidden_dropout": config.dropout,
        "initializer_range": config.initialisation.std,
        "rotary_emb_base": rotary["rope_theta"],
        "rotary_pct": 1.0,
        "rope_parameters": {**rotary["rope_parameters"], "partial_rotary_factor": 1.0},
    }


def _recognise(settings: Settings) -> ModelConfig:
    return recognised(
        layers=settings["num_hidden_layers"],
        heads=settings["num_attention_heads"],
        dim=settings["hidden_size"],
        context=settings["max_position_embeddings"],
        vocab_size=settings["vocab_size"],
        residual="parallel" if settings.get("use_parallel_residual", True) else "sequential",
        dropout=common_dropout(settings, "attention_dropout", "hidden_dropout"),
        position=read_rotary(settings, share=0.25, base="rotary_emb_base"),
        mlp={
            "kind": "plain",
            "activation": known_activation(settings.get("hidden_act", "gelu")),
            "hidden": settings["intermediate_size"],
        },
        norm={"eps": settings.get("layer_norm_eps", 1e-5)},
        head={"tied": settings.get("tie_word_embeddings", False)},
    )


def _pieces(config: ModelConfig) -> Iterator[Piece | Constant]:
    D, H, bias = config.dim, config.heads, config.bias
    yield same("embedding.weight", (_EMBEDDING,))
    for number in range(config.layers):
        ours, theirs = f"blocks.{number}", f"gpt_neox.layers.{number}"
        interleaved = partial(by_heads, heads=H, kv_heads=H)
        yield from layer(
            f"{ours}.attention.qkv", f"{theirs}.attention.query_key_value", interleaved, bias=bias, optional=True
        )
        yield from layer(f"{ours}.attention.output", f"{theirs}.attention.dense", bias=bias, optional=True)
        hidden = config.mlp.hidden or 4 * D
        yield from layer(f"{ours}.mlp.up", f"{theirs}.mlp.dense_h_to_4h", bias=bias, zero_bias=(hidden,))
        yield from layer(f"{ours}.mlp.down", f"{theirs}.mlp.dense_4h_to_h", bias=bias, zero_bias=(D,))
        norms = (f"{theirs}.input_layernorm", f"{theirs}.post_attention_layernorm")
        if config.residual == "parallel":
            yield from layer(f"{ours}.norm", norms, bias=bias, zero_bias=(D, D))
        else:
            yield from layer(f"{ours}.attention_norm", norms[0], bias=bias, zero_bias=(D,))
            yield from layer(f"{ours}.mlp_norm", norms[1], bias=bias, zero_bias=(D,))
    yield from layer("final_norm", "gpt_neox.final_layer_norm", bias=bias, zero_bias=(D,))
    if not config.head.tied:
        yield same("head.weight", (_HEAD,))


GPT_NEOX = Carrier("gpt_neox", "GPTNeoXForCausalLM", _describe, _recognise, _pieces, "gpt_neox.", _EMBEDDING, _HEAD)
