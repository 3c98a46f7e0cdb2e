"""MptForCausalLM: ALiBi, no biases, an MLP four times as wide."""

from collections.abc import Iterator
from typing import Any

from daybreak.exchange.carrier import Carrier, Settings, recognised, require, require_only
from daybreak.exchange.pieces import Constant, MisfitError, Piece, layer, same
from daybreak.model.gpt import ModelConfig

_EMBEDDING = "transformer.wte.weight"


def _describe(config: ModelConfig) -> dict[str, Any]:
    require_only(config, "norm.eps", "head.tied", bias=False, position__kind="alibi", mlp__hidden=4 * config.dim)
    return {
        "architectures": ["MPTForCausalLM"],  # as the first of its kind said, and llama.cpp still reads
        "n_layers": config.layers,
        "n_heads": config.heads,
        "d_model": config.dim,
        "expansion_ratio": 4,
        "max_seq_len": config.context,
        "vocab_size": config.vocab_size,
        "layer_norm_epsilon": config.norm.eps,
        "no_bias": True,
        "attn_config": {"alibi": True, "alibi_bias_max": 8, "attn_type": "multihead_attention", "clip_qkv": None},
        "tie_word_embeddings": config.head.tied,
        "initializer_range": config.initialisation.std,
    }


def _recognise(settings: Settings) -> ModelConfig:
    attention = settings.get("attn_config") or {}
    require(settings, expansion_ratio=4, no_bias=True, logit_scale=None)
    require(
        attention,
        alibi=True, alibi_bias_max=8, attn_type="multihead_attention", clip_qkv=None, softmax_scale=None, qk_ln=False,
        prefix_lm=False, attn_uses_sequence_id=False,
    )  # fmt: skip
    if settings.get("norm_type", "low_precision_layernorm") not in ("low_precision_layernorm", "layernorm"):
        raise MisfitError(f"its norm is {settings['norm_type']}")
    dim = settings["d_model"]
    return recognised(
        layers=settings["n_layers"],
        heads=settings["n_heads"],
        dim=dim,
        context=settings["max_seq_len"],
        vocab_size=settings["vocab_size"],
        bias=False,
        position={"kind": "alibi"},
        mlp={"kind": "plain", "activation": "gelu", "hidden": 4 * dim},
        norm={"eps": settings.get("layer_norm_epsilon", 1e-5)},
        head={"tied": settings.get("tie_word_embeddings", True)},
    )


def _pieces(config: ModelConfig) -> Iterator[Piece | Constant]:
    yield same("embedding.weight", (_EMBEDDING,))
    for number in range(config.layers):
        ours, theirs = f"blocks.{number}", f"transformer.blocks.{number}"
        yield from layer(f"{ours}.attention.qkv", f"{theirs}.attn.Wqkv")
        yield from layer(f"{ours}.attention.output", f"{theirs}.attn.out_proj")
        yield from layer(f"{ours}.mlp.up", f"{theirs}.ffn.up_proj")
        yield from layer(f"{ours}.mlp.down", f"{theirs}.ffn.down_proj")
        yield from layer(f"{ours}.attention_norm", f"{theirs}.norm_1")
        yield from layer(f"{ours}.mlp_norm", f"{theirs}.norm_2")
    yield from layer("final_norm", "transformer.norm_f")
    if not config.head.tied:
        yield same("head.weight", ("lm_head.weight",))


MPT = Carrier("mpt", "MptForCausalLM", _describe, _recognise, _pieces, "transformer.", _EMBEDDING)
