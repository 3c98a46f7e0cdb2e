"""Classes with Llama's names and LayerNorm: Starcoder2 is not gated, StableLM is, and may have a parallel residual.

Their norms have biases, which are zero where ours have none; where their matrices have none, ours are zero.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from daybreak.exchange.carrier import Carrier, Settings, require, require_only
from daybreak.exchange.decoder import EMBEDDING, FREE, attention_pieces, decoder_settings, mlp_pieces, read_decoder
from daybreak.exchange.pieces import Constant, MisfitError, Piece, layer, same
from daybreak.exchange.rotary import rotary_settings
from daybreak.model.gpt import ModelConfig


def _describe_starcoder2(config: ModelConfig) -> dict[str, Any]:
    require_only(config, *FREE, "bias", "attention.windows", position__kind="rotary")
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
        norm={"eps": settings.get("norm_epsilon", 1e-5)},
        attention={"windows": (settings.get("sliding_window") or 0,)},
    )


def _describe_stablelm(config: ModelConfig) -> dict[str, Any]:
    require_only(config, *FREE, "residual", bias=False, position__kind="rotary", mlp__kind="glu")
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
        norm={"eps": settings.get("layer_norm_eps", 1e-5)},
        residual="parallel" if settings.get("use_parallel_residual") else "sequential",
    )


def _pieces_starcoder2(config: ModelConfig) -> Iterator[Piece | Constant]:
    linear = partial(layer, bias=config.bias, optional=True)
    yield same("embedding.weight", (EMBEDDING,))
    for number in range(config.layers):
        ours, theirs = f"blocks.{number}", f"model.layers.{number}"
        yield from attention_pieces(config, f"{ours}.attention.qkv", f"{theirs}.self_attn", optional=True)
        yield from linear(f"{ours}.attention.output", f"{theirs}.self_attn.o_proj")
        yield from linear(f"{ours}.mlp.up", f"{theirs}.mlp.c_fc")
        yield from linear(f"{ours}.mlp.down", f"{theirs}.mlp.c_proj")
        yield from _norm(config, f"{ours}.attention_norm", f"{theirs}.input_layernorm")
        yield from _norm(config, f"{ours}.mlp_norm", f"{theirs}.post_attention_layernorm")
    yield from _ending(config)


def _pieces_stablelm(config: ModelConfig) -> Iterator[Piece | Constant]:
    yield same("embedding.weight", (EMBEDDING,))
    for number in range(config.layers):
        ours, theirs = f"blocks.{number}", f"model.layers.{number}"
        attention = f"{theirs}.self_attn"
        yield from attention_pieces(config, f"{ours}.attention.qkv", attention, optional=True)
        yield from layer(f"{ours}.attention.output", f"{attention}.o_proj", bias=config.bias, optional=True)
        yield from mlp_pieces(config, f"{ours}.mlp", f"{theirs}.mlp", optional=True)
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
