"""What all classes with Llama's names of settings and tensors share; each is in a file with its like.

They have rotary positions and grouped heads; queries, keys and values are tensors of their own.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from daybreak.exchange.carrier import Settings, activation, common_dropout, known_activation, recognised
from daybreak.exchange.pieces import Constant, MisfitError, Piece, layer, stacked
from daybreak.exchange.rotary import read_rotary, rotary_settings
from daybreak.model.gpt import ModelConfig

EMBEDDING = "model.embed_tokens.weight"
# Settings of ours that may have any value in all of them.
FREE = ("position.base", "attention.kv_heads", "mlp.activation", "mlp.hidden", "norm.eps", "head.tied")


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


def read_decoder(
    settings: Settings,
    *,
    mlp: str,
    act: str,
    tied: bool = False,
    attention: Mapping[str, Any] | None = None,
    **parts: Any,
) -> ModelConfig:
    """The model that these settings describe.

    Args:
        mlp: kind of ours.
        act: the class's own, where the settings do not say.
        tied: the same of the head.
        attention: its settings besides the heads.
        parts: other parts of the model.
    """
    heads, dim = settings["num_attention_heads"], settings["hidden_size"]
    if (settings.get("head_dim") or dim // heads) * heads != dim:
        raise MisfitError(f"its {heads} heads of {settings['head_dim']} are not {dim} wide together")
    kv_heads = settings.get("num_key_value_heads") or heads
    return recognised(
        layers=settings["num_hidden_layers"],
        heads=heads,
        dim=dim,
        context=settings["max_position_embeddings"],
        vocab_size=settings["vocab_size"],
        position=read_rotary(settings),
        dropout=common_dropout(settings, "attention_dropout"),
        head={"tied": settings.get("tie_word_embeddings", tied)},
        mlp={
            "kind": mlp,
            "activation": known_activation(settings.get("hidden_act", act)),
            "hidden": settings["intermediate_size"],
        },
        attention={"kv_heads": None if kv_heads == heads else kv_heads, **(attention or {})},
        **parts,
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
