"""FalconForCausalLM: a parallel residual with one norm, rotary positions, a plain MLP, and grouped heads.

Its norms always have biases; where its matrices have none, ours are zero.

It has ALiBi too, but divides it by the root of the head size, as it does the products of queries and keys, and rounds
its slopes to bf16: it is no ALiBi of ours, unless a head is one number wide.
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
from daybreak.exchange.pieces import Constant, MisfitError, Piece, by_heads, layer, same
from daybreak.exchange.rotary import read_rotary, rotary_settings
from daybreak.model.gpt import ModelConfig

_EMBEDDING = "transformer.word_embeddings.weight"


def _describe(config: ModelConfig) -> dict[str, Any]:
    if config.position.kind == "alibi":
        raise MisfitError("model.position.kind = alibi, which it divides by the root of the head size")
    require_only(
        config,
        "bias", "attention.kv_heads", "position.base", "mlp.activation", "mlp.hidden", "norm.eps", "head.tied",
        position__kind="rotary", residual="parallel",
    )  # fmt: skip
    kv_heads = config.attention.kv_heads or config.heads
    grouped = 1 < kv_heads < config.heads
    return {
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_kv_heads": kv_heads,
        "hidden_size": config.dim,
        "ffn_hidden_size": config.mlp.hidden,
        "max_position_embeddings": config.context,
        "vocab_size": config.vocab_size,
        "activation": activation(config),
        "layer_norm_epsilon": config.norm.eps,
        "tie_word_embeddings": config.head.tied,
        "alibi": False,
        "bias": config.bias,
        "parallel_attn": True,
        "multi_query": kv_heads == 1,
        "new_decoder_architecture": grouped,
        "num_ln_in_parallel_attn": 1 if grouped else None,
        "attention_dropout": config.dropout,
        "hidden_dropout": config.dropout,
        "initializer_range": config.initialisation.std,
        **rotary_settings(config),
    }


def _recognise(settings: Settings) -> ModelConfig:
    if settings.get("alibi"):
        raise MisfitError("it divides ALiBi by the root of the head size, which ours does not")
    require(settings, parallel_attn=True)
    heads, dim = settings["num_attention_heads"], settings["hidden_size"]
    if settings.get("new_decoder_architecture"):
        if settings.get("num_ln_in_parallel_attn") != 1:
            raise MisfitError("its attention and MLP have a norm each")
        kv_heads = settings.get("num_kv_heads") or heads
    else:
        kv_heads = 1 if settings.get("multi_query", True) else heads
    return recognised(
        layers=settings["num_hidden_layers"],
        heads=heads,
        dim=dim,
        context=settings.get("max_position_embeddings", 2048),
        vocab_size=settings["vocab_size"],
        residual="parallel",
        dropout=common_dropout(settings, "attention_dropout", "hidden_dropout"),
        position=read_rotary(settings),
        attention={"kv_heads": None if kv_heads == heads else kv_heads},
        mlp={
            "kind": "plain",
            "activation": known_activation(settings.get("activation", "gelu")),
            "hidden": settings.get("ffn_hidden_size") or 4 * dim,
        },
        norm={"eps": settings.get("layer_norm_epsilon", 1e-5)},
        head={"tied": settings.get("tie_word_embeddings", True)},
    )


def _pieces(config: ModelConfig) -> Iterator[Piece | Constant]:
    D = config.dim
    linear = partial(layer, bias=config.bias, optional=True)
    grouped = partial(by_heads, heads=config.heads, kv_heads=config.attention.kv_heads or config.heads)
    yield same("embedding.weight", (_EMBEDDING,))
    for number in range(config.layers):
        ours, theirs = f"blocks.{number}", f"transformer.h.{number}"
        yield from linear(f"{ours}.attention.qkv", f"{theirs}.self_attention.query_key_value", grouped)
        yield from linear(f"{ours}.attention.output", f"{theirs}.self_attention.dense")
        yield from linear(f"{ours}.mlp.up", f"{theirs}.mlp.dense_h_to_4h")
        yield from linear(f"{ours}.mlp.down", f"{theirs}.mlp.dense_4h_to_h")
        yield from layer(f"{ours}.norm", f"{theirs}.input_layernorm", bias=config.bias, zero_bias=(D,))
    yield from layer("final_norm", "transformer.ln_f", bias=config.bias, zero_bias=(D,))
    if not config.head.tied:
        yield same("head.weight", ("lm_head.weight",))


FALCON = Carrier("falcon", "FalconForCausalLM", _describe, _recognise, _pieces, "transformer.", _EMBEDDING)
