"""Classes with Llama's names and LayerNorm: Starcoder2 is not gated, StableLM is, and may have a parallel residual.

Their norms have biases, which are zero where ours have none.
"""

from collections.abc import Iterator
from typing import Any

from daybreak.exchange.carrier import Carrier, Settings, require, require_only
from daybreak.exchange.llama import EMBEDDING, attention_pieces, decoder_settings, mlp_pieces, read_decoder
from daybreak.exchange.pieces import Constant, MisfitError, Piece, layer, missing, same
from daybreak.exchange.rotary import rotary_settings
from daybreak.model.gpt import ModelConfig

_FREE = ("position.base", "attention.kv_heads", "mlp.activation", "mlp.hidden", "norm.eps", "head.tied")


def _describe_starcoder2(config: ModelConfig) -> dict[str, Any]:
    require_only(config, *_FREE, "bias", "attention.windows", position__kind="rotary")
    if len(config.attention.windows) > 1:
        raise MisfitError("model.attention.windows that are not all alike")
    return {
        **decoder_settings(config),
        "use_bias": config.bias,
        "norm_epsilon": config.norm.eps,
        "sliding_window": config.attention.windows[0] or None,
        "residual_dropout": config.dropout,
        "embedding_dropout": config.dropout,
    }


def _recognise_starcoder2(settings: Settings) -> ModelConfig:
    return read_decoder(
        settings,
        mlp="plain",
        act="gelu_pytorch_tanh",
        tied=True,
        bias=settings.get("use_bias", True),
        norm={"eps": settings.get("norm_epsilon", 1e-5)},
        attention={"windows": (settings.get("sliding_window") or 0,)},
    )


def _describe_stablelm(config: ModelConfig) -> dict[str, Any]:
    require_only(config, *_FREE, "residual", bias=False, position__kind="rotary", mlp__kind="glu")
    settings = decoder_settings(config)
    rotary = rotary_settings(config)["rope_parameters"] | {"partial_rotary_factor": 1.0}
    return {
        **settings,
        "rope_parameters": rotary,
        "partial_rotary_factor": 1.0,
        "layer_norm_eps": config.norm.eps,
        "use_parallel_residual": config.residual == "parallel",
        "use_qkv_bias": False,
        "qk_layernorm": False,
        "hidden_dropout": config.dropout,
    }


def _recognise_stablelm(settings: Settings) -> ModelConfig:
    require(settings, use_qkv_bias=False, qk_layernorm=False)
    return read_decoder(
        {"partial_rotary_factor": 0.25, **settings},
        mlp="glu",
        act="silu",
        # Its norms have biases, so ours have some everywhere.
        bias=True,
        norm={"eps": settings.get("layer_norm_eps", 1e-5)},
        residual="parallel" if settings.get("use_parallel_residual") else "sequential",
    )


def _pieces_starcoder2(config: ModelConfig) -> Iterator[Piece | Constant]:
    yield same("embedding.weight", (EMBEDDING,))
    for number in range(config.layers):
        ours, theirs = f"blocks.{number}", f"model.layers.{number}"
        yield from attention_pieces(config, f"{ours}.attention.qkv", f"{theirs}.self_attn")
        yield from layer(f"{ours}.attention.output", f"{theirs}.self_attn.o_proj", bias=config.bias)
        yield from layer(f"{ours}.mlp.up", f"{theirs}.mlp.c_fc", bias=config.bias)
        yield from layer(f"{ours}.mlp.down", f"{theirs}.mlp.c_proj", bias=config.bias)
        yield from _norm(config, f"{ours}.attention_norm", f"{theirs}.input_layernorm")
        yield from _norm(config, f"{ours}.mlp_norm", f"{theirs}.post_attention_layernorm")
    yield from _ending(config)


def _pieces_stablelm(config: ModelConfig) -> Iterator[Piece | Constant]:
    """Its matrices have no biases; where ours have, those are zero."""
    D, hidden = config.dim, config.mlp.hidden or 4 * config.dim
    values = (config.attention.kv_heads or config.heads) * (D // config.heads)
    unbiased = config.model_copy(update={"bias": False})
    yield same("embedding.weight", (EMBEDDING,))
    for number in range(config.layers):
        ours, theirs = f"blocks.{number}", f"model.layers.{number}"
        yield from attention_pieces(unbiased, f"{ours}.attention.qkv", f"{theirs}.self_attn")
        yield from layer(f"{ours}.attention.output", f"{theirs}.self_attn.o_proj")
        yield from mlp_pieces(unbiased, f"{ours}.mlp", f"{theirs}.mlp", bias=False)
        if config.bias:
            yield missing(f"{ours}.attention.qkv.bias", D + 2 * values)
            yield missing(f"{ours}.attention.output.bias", D)
            yield missing(f"{ours}.mlp.up.bias", 2 * hidden)
            yield missing(f"{ours}.mlp.down.bias", D)
        if config.residual == "parallel":
            yield from _norm(config, f"{ours}.norm", f"{theirs}.input_layernorm")
        else:
            yield from _norm(config, f"{ours}.attention_norm", f"{theirs}.input_layernorm")
            yield from _norm(config, f"{ours}.mlp_norm", f"{theirs}.post_attention_layernorm")
    yield from _ending(config)


def _ending(config: ModelConfig) -> Iterator[Piece | Constant]:
    yield from _norm(config, "final_norm", "model.norm")
    if not config.head.tied:
        yield same("head.weight", ("lm_head.weight",))


def _norm(config: ModelConfig, ours: str, theirs: str) -> Iterator[Piece | Constant]:
    yield from layer(ours, theirs, bias=config.bias, zero_bias=(config.dim,))


STARCODER2 = Carrier(
    "starcoder2",
    "Starcoder2ForCausalLM",
    _describe_starcoder2,
    _recognise_starcoder2,
    _pieces_starcoder2,
    "model.",
    EMBEDDING,
)
STABLELM = Carrier(
    "stablelm", "StableLmForCausalLM", _describe_stablelm, _recognise_stablelm, _pieces_stablelm, "model.", EMBEDDING
)
