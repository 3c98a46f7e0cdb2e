"""Our GPT computes what the reference implementations in `transformers` compute, given the same weights."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from daybreak.data.windows import IGNORED
from daybreak.model.gpt import GPT, ModelConfig, build
from gpt2_weights import copy, copy_gpt2, scramble

SIZES = {"layers": 2, "heads": 4, "dim": 32, "context": 24, "vocab_size": 61}
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def our_model(**settings: Any) -> GPT:
    return build(ModelConfig(**(SIZES | settings)), 0, torch.device("cpu"))


def some_tokens() -> Tensor:
    return torch.randint(SIZES["vocab_size"], (3, SIZES["context"]), generator=torch.Generator().manual_seed(2))


def per_head_to_per_kind(fused: Tensor, heads: int) -> Tensor:
    """Rows ordered (head, query/key/value, size), as in BLOOM and GPT-NeoX, to (query/key/value, head, size)."""
    return fused.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)


def assert_same_logits_and_loss(ours: GPT, theirs: nn.Module) -> None:
    """Of the logits, the mean loss, and its gradient in the embedding, which all other gradients flow through."""
    tokens = some_tokens()
    reference = theirs(input_ids=tokens, labels=tokens)
    logits = ours.logits(tokens)
    assert reference.logits.std() > 0.1
    torch.testing.assert_close(logits, reference.logits, **TOLERANCE)
    targets = torch.full_like(tokens, IGNORED)
    targets[:, :-1] = tokens[:, 1:]
    loss = ours(tokens, targets) / (targets != IGNORED).sum()
    torch.testing.assert_close(loss, reference.loss, **TOLERANCE)
    loss.backward()
    reference.loss.backward()
    embedding: Any = theirs.get_input_embeddings()  # type: ignore[operator]
    torch.testing.assert_close(ours.embedding.weight.grad, embedding.weight.grad, **TOLERANCE)


@pytest.mark.parametrize(("activation", "their_activation"), [("gelu_tanh", "gelu_new"), ("gelu", "gelu")])
def test_gpt2_is_gpt2(activation: str, their_activation: str) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_layer=SIZES["layers"],
        n_head=SIZES["heads"],
        n_embd=SIZES["dim"],
        n_positions=SIZES["context"],
        vocab_size=SIZES["vocab_size"],
        activation_function=their_activation,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="eager",
    )
    theirs = GPT2LMHeadModel(config).eval()
    scramble(theirs)
    ours = our_model(mlp={"activation": activation})
    copy_gpt2(theirs, ours)
    assert_same_logits_and_loss(ours, theirs)


@pytest.mark.parametrize(("kv_heads", "tied"), [(4, True), (2, False), (1, True)])
def test_rotary_rmsnorm_and_gated_silu_are_llama(kv_heads: int, tied: bool) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        num_hidden_layers=SIZES["layers"],
        num_attention_heads=SIZES["heads"],
        num_key_value_heads=kv_heads,
        hidden_size=SIZES["dim"],
        intermediate_size=48,
        max_position_embeddings=SIZES["context"],
        vocab_size=SIZES["vocab_size"],
        rms_norm_eps=1e-6,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="eager",
    )
    theirs = LlamaForCausalLM(config).eval()
    scramble(theirs)
    ours = our_model(
        bias=False,
        position={"kind": "rotary"},
        attention={"kv_heads": kv_heads},
        mlp={"kind": "glu", "activation": "silu", "hidden": 48},
        norm={"kind": "rmsnorm", "eps": 1e-6},
        head={"tied": tied},
    )
    body = theirs.model
    values = {ours.embedding.weight: body.embed_tokens.weight, ours.final_norm.weight: body.norm.weight}
    if not tied:
        values[ours.head.weight] = theirs.lm_head.weight
    for our_block, their_block in zip(ours.blocks, body.layers, strict=True):
        attention, mlp = their_block.self_attn, their_block.mlp
        qkv = (attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight)
        values |= {
            our_block.attention_norm.weight: their_block.input_layernorm.weight,
            our_block.attention.qkv.weight: torch.cat(qkv),
            our_block.attention.output.weight: attention.o_proj.weight,
            our_block.mlp_norm.weight: their_block.post_attention_layernorm.weight,
            our_block.mlp.up.weight: torch.cat((mlp.gate_proj.weight, mlp.up_proj.weight)),
            our_block.mlp.down.weight: mlp.down_proj.weight,
        }
    assert set(values) == set(ours.parameters())
    copy(values)
    assert_same_logits_and_loss(ours, theirs)


@pytest.mark.parametrize("heads", [4, 6])
def test_alibi_and_the_norm_after_the_embedding_are_bloom(heads: int) -> None:
    from transformers import BloomConfig, BloomForCausalLM

    config = BloomConfig(
        n_layer=SIZES["layers"],
        n_head=heads,
        hidden_size=8 * heads,
        vocab_size=SIZES["vocab_size"],
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="eager",
    )
    theirs = BloomForCausalLM(config).eval()
    scramble(theirs)
    ours = our_model(
        heads=heads,
        dim=8 * heads,
        position={"kind": "alibi"},
        mlp={"activation": "gelu_tanh"},
        extra_norms={"after_embedding": True},
    )
    body = theirs.transformer
    values = {
        ours.embedding.weight: body.word_embeddings.weight,
        ours.embedding_norm.weight: body.word_embeddings_layernorm.weight,
        ours.embedding_norm.bias: body.word_embeddings_layernorm.bias,
        ours.final_norm.weight: body.ln_f.weight,
        ours.final_norm.bias: body.ln_f.bias,
    }
    for our_block, their_block in zip(ours.blocks, body.h, strict=True):
        attention, mlp = their_block.self_attention, their_block.mlp
        values |= {
            our_block.attention_norm.weight: their_block.input_layernorm.weight,
            our_block.attention_norm.bias: their_block.input_layernorm.bias,
            our_block.attention.qkv.weight: per_head_to_per_kind(attention.query_key_value.weight, heads),
            our_block.attention.qkv.bias: per_head_to_per_kind(attention.query_key_value.bias, heads),
            our_block.attention.output.weight: attention.dense.weight,
            our_block.attention.output.bias: attention.dense.bias,
            our_block.mlp_norm.weight: their_block.post_attention_layernorm.weight,
            our_block.mlp_norm.bias: their_block.post_attention_layernorm.bias,
            our_block.mlp.up.weight: mlp.dense_h_to_4h.weight,
            our_block.mlp.up.bias: mlp.dense_h_to_4h.bias,
            our_block.mlp.down.weight: mlp.dense_4h_to_h.weight,
            our_block.mlp.down.bias: mlp.dense_4h_to_h.bias,
        }
    assert set(values) == set(ours.parameters())
    copy(values)
    assert_same_logits_and_loss(ours, theirs)


def test_the_parallel_residual_is_gpt_neox_with_its_two_norms_made_one() -> None:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        num_hidden_layers=SIZES["layers"],
        num_attention_heads=SIZES["heads"],
        hidden_size=SIZES["dim"],
        intermediate_size=4 * SIZES["dim"],
        max_position_embeddings=SIZES["context"],
        vocab_size=SIZES["vocab_size"],
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 1.0},
        use_parallel_residual=True,
        hidden_act="gelu",
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="eager",
    )
    theirs = GPTNeoXForCausalLM(config).eval()
    scramble(theirs)
    for layer in theirs.gpt_neox.layers:
        layer.post_attention_layernorm.load_state_dict(layer.input_layernorm.state_dict())
    ours = our_model(residual="parallel", position={"kind": "rotary"}, head={"tied": False})
    body, heads = theirs.gpt_neox, SIZES["heads"]
    values = {
        ours.embedding.weight: body.embed_in.weight,
        ours.head.weight: theirs.get_output_embeddings().weight,
        ours.final_norm.weight: body.final_layer_norm.weight,
        ours.final_norm.bias: body.final_layer_norm.bias,
    }
    for our_block, their_block in zip(ours.blocks, body.layers, strict=True):
        attention, mlp = their_block.attention, their_block.mlp
        values |= {
            our_block.norm.weight: their_block.input_layernorm.weight,
            our_block.norm.bias: their_block.input_layernorm.bias,
            our_block.attention.qkv.weight: per_head_to_per_kind(attention.query_key_value.weight, heads),
            our_block.attention.qkv.bias: per_head_to_per_kind(attention.query_key_value.bias, heads),
            our_block.attention.output.weight: attention.dense.weight,
            our_block.attention.output.bias: attention.dense.bias,
            our_block.mlp.up.weight: mlp.dense_h_to_4h.weight,
            our_block.mlp.up.bias: mlp.dense_h_to_4h.bias,
            our_block.mlp.down.weight: mlp.dense_4h_to_h.weight,
            our_block.mlp.down.bias: mlp.dense_4h_to_h.bias,
        }
    assert set(values) == set(ours.parameters())
    copy(values)
    assert_same_logits_and_loss(ours, theirs)
