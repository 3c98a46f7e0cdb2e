"""BloomForCausalLM: ALiBi, biases, a norm after the embedding, an MLP four times as wide with the tanh form of GELU."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from daybreak.exchange.carrier import Carrier, Settings, common_dropout, recognised, require, require_only
from daybreak.exchange.pieces import Constant, Piece, by_heads, layer, same
from daybreak.model.gpt import ModelConfig

_EMBEDDING = "transformer.word_embeddings.weight"


def _describe(config: ModelConfig) -> dict[str, Any]:
    require_only(
        config,
        "bias", "norm.eps", "head.tied",
        position__kind="alibi", extra_norms__after_embedding=True,
        mlp__hidden=4 * config.dim, mlp__activation="gelu_tanh",
    )  # fmt: skip
    return {
        "n_layer": config.layers,
        "n_head": config.heads,
        "hidden_size": config.dim,
        "seq_length": config.context,
        "vocab_size": config.vocab_size,
        "layer_norm_epsilon": config.norm.eps,
        "tie_word_embeddings": config.head.tied,
        "apply_residual_connection_post_layernorm": False,
        "attention_dropout": config.dropout,
        "hidden_dropout": config.dropout,
        "initializer_range": config.initialisation.std,
        "pretraining_tp": 1,
    }


def _recognise(settings: Settings) -> ModelConfig:
    require(settings, apply_residual_connection_post_layernorm=False)
    dim = settings.get("hidden_size") or settings["n_embed"]
    return recognised(
        layers=settings["n_layer"],
        heads=settings.get("n_head") or settings["num_attention_heads"],
        dim=dim,
        context=settings.get("seq_length", 2048),
        vocab_size=settings["vocab_size"],
        dropout=common_dropout(settings, "attention_dropout", "hidden_dropout"),
        position={"kind": "alibi"},
        extra_norms={"after_embedding": True},
        mlp={"kind": "plain", "activation": "gelu_tanh", "hidden": 4 * dim},
        norm={"eps": settings.get("layer_norm_epsilon", 1e-5)},
        head={"tied": settings.get("tie_word_embeddings", True)},
    )


def _pieces(config: ModelConfig) -> Iterator[Piece | Constant]:
    D, H, bias = config.dim, config.heads, config.bias
    yield same("embedding.weight", (_EMBEDDING,))
    yield from layer("embedding_norm", "transformer.word_embeddings_layernorm", bias=bias, zero_bias=(D,))
    for number in range(config.layers):
        ours, theirs = f"blocks.{number}", f"transformer.h.{number}"
        interleaved = partial(by_heads, heads=H, kv_heads=H)
        attention = f"{theirs}.self_attention"
        yield from layer(
            f"{ours}.attention.qkv", f"{attention}.query_key_value", interleaved, bias=bias, zero_bias=(3 * D,)
        )
        yield from layer(f"{ours}.attention.output", f"{attention}.dense", bias=bias, zero_bias=(D,))
        yield from layer(f"{ours}.mlp.up", f"{theirs}.mlp.dense_h_to_4h", bias=bias, zero_bias=(4 * D,))
        yield from layer(f"{ours}.mlp.down", f"{theirs}.mlp.dense_4h_to_h", bias=bias, zero_bias=(D,))
        yield from layer(f"{ours}.attention_norm", f"{theirs}.input_layernorm", bias=bias, zero_bias=(D,))
        yield from layer(f"{ours}.mlp_norm", f"{theirs}.post_attention_layernorm", bias=bias, zero_bias=(D,))
    yield from layer("final_norm", "transformer.ln_f", bias=bias, zero_bias=(D,))
    if not config.head.tied:
        yield same("head.weight", ("lm_head.weight",))


BLOOM = Carrier("bloom", "BloomForCausalLM", _describe, _recognise, _pieces, "transformer.", _EMBEDDING)
