"""GPT-2 with weights far from its initial ones, and that of `transformers` and ours with the same."""

from typing import Any

import torch
from torch import Tensor, nn

from daybreak.model.gpt import GPT, ModelConfig, build


def scramble(model: nn.Module) -> None:
    """Weights, biases and norms all far from their initial values, so that none can be left out unseen."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))


def random_gpt2(**settings: Any) -> GPT:
    """A small one, whose answers differ from one another."""
    sizes: dict[str, Any] = {"layers": 2, "heads": 4, "dim": 32, "context": 128, "vocab_size": 257}
    model = build(ModelConfig(**(sizes | {"mlp": {"activation": "gelu_tanh"}} | settings)), 0, torch.device("cpu"))
    scramble(model)
    return model


def copy(values: dict[nn.Parameter, Tensor]) -> None:
    with torch.no_grad():
        for ours, theirs in values.items():
            assert ours.shape == theirs.shape
            ours.copy_(theirs)


def copy_gpt2(theirs: nn.Module, ours: GPT) -> None:
    """Give our model all weights of a GPT2LMHeadModel."""
    body = theirs.transformer
    values = {
        ours.embedding.weight: body.wte.weight,
        ours.position.weight: body.wpe.weight,
        ours.final_norm.weight: body.ln_f.weight,
        ours.final_norm.bias: body.ln_f.bias,
    }
    for our_block, their_block in zip(ours.blocks, body.h, strict=True):
        values |= {
            our_block.attention_norm.weight: their_block.ln_1.weight,
            our_block.attention_norm.bias: their_block.ln_1.bias,
            our_block.attention.qkv.weight: their_block.attn.c_attn.weight.T,
            our_block.attention.qkv.bias: their_block.attn.c_attn.bias,
            our_block.attention.output.weight: their_block.attn.c_proj.weight.T,
            our_block.attention.output.bias: their_block.attn.c_proj.bias,
            our_block.mlp_norm.weight: their_block.ln_2.weight,
            our_block.mlp_norm.bias: their_block.ln_2.bias,
            our_block.mlp.up.weight: their_block.mlp.c_fc.weight.T,
            our_block.mlp.up.bias: their_block.mlp.c_fc.bias,
            our_block.mlp.down.weight: their_block.mlp.c_proj.weight.T,
            our_block.mlp.down.bias: their_block.mlp.c_proj.bias,
        }
    assert set(values) == set(ours.parameters())
    copy(values)
