"""Our GPT computes what the reference implementations in `transformers` compute, given the same weights."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from daybreak.data.windows import IGNORED
from daybreak.exchange.carriers import carrier_named
from daybreak.exchange.pieces import to_ours
from daybreak.model.gpt import GPT, build
from gpt2_weights import scramble

SIZES = {"layers": 2, "heads": 4, "dim": 32, "context": 24, "vocab_size": 61}
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
COMMON = {"vocab_size": SIZES["vocab_size"], "bos_token_id": 0, "eos_token_id": 0, "attn_implementation": "eager"}
GPT2 = COMMON | {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 24}
DECODER = COMMON | {
    "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "max_position_embeddings": 24,
}  # fmt: skip
ROTARY = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 1.0}


def made(name: str, settings: dict[str, Any]) -> nn.Module:
    """A model of transformers with random weights."""
    head = "LMHeadModel" if name == "GPT2" else "ForCausalLM"
    model = getattr(transformers, name + head)(getattr(transformers, f"{name}Config")(**settings)).eval()
    scramble(model)
    return model


def ours_of(theirs: Any) -> GPT:
    """Our model with all of its weights."""
    settings = theirs.config.to_dict()
    carrier = carrier_named(settings)
    config = carrier.recognise(settings)
    tensors = {name.replace("lm_head.weight", carrier.head): tensor for name, tensor in theirs.state_dict().items()}
    if config.head.tied:
        del tensors[carrier.head]
    ours = build(config, 0, torch.device("cpu"))
    ours.load_state_dict(to_ours(carrier.placed(config), tensors))
    return ours


def some_tokens() -> Tensor:
    return torch.randint(SIZES["vocab_size"], (3, SIZES["context"]), generator=torch.Generator().manual_seed(2))


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


@pytest.mark.parametrize("activation", ["gelu_new", "gelu"])
def test_gpt2_is_gpt2(activation: str) -> None:
    theirs = made("GPT2", GPT2 | {"activation_function": activation})
    assert_same_logits_and_loss(ours_of(theirs), theirs)


@pytest.mark.parametrize(("kv_heads", "tied"), [(4, True), (2, False), (1, True)])
def test_rotary_rmsnorm_and_gated_silu_are_llama(kv_heads: int, tied: bool) -> None:
    own = {"intermediate_size": 48, "num_key_value_heads": kv_heads, "rms_norm_eps": 1e-6, "tie_word_embeddings": tied}
    theirs = made("Llama", DECODER | own)
    ours = ours_of(theirs)
    assert (ours.config.norm.kind, ours.config.position.kind, ours.config.mlp.kind) == ("rmsnorm", "rotary", "glu")
    assert_same_logits_and_loss(ours, theirs)


@pytest.mark.parametrize("heads", [4, 6])
def test_alibi_and_the_norm_after_the_embedding_are_bloom(heads: int) -> None:
    theirs = made("Bloom", COMMON | {"n_layer": 2, "n_head": heads, "hidden_size": 8 * heads, "seq_length": 24})
    ours = ours_of(theirs)
    assert (ours.config.position.kind, ours.config.extra_norms.after_embedding) == ("alibi", True)
    assert_same_logits_and_loss(ours, theirs)


def test_the_parallel_residual_is_gpt_neox_with_its_two_norms_made_one() -> None:
    theirs: Any = made("GPTNeoX", DECODER | {"intermediate_size": 128, "rope_parameters": ROTARY})
    for layer in theirs.gpt_neox.layers:
        layer.post_attention_layernorm.load_state_dict(layer.input_layernorm.state_dict())
    ours = ours_of(theirs)
    assert ours.config.residual == "parallel"
    assert_same_logits_and_loss(ours, theirs)
