"""Small models of every shape that a class of transformers carries, and of some that none does."""

from typing import Any

from daybreak.model.gpt import GPT
from gpt2_weights import scramble
from small_models import make_gpt

_ROTARY = {"kind": "rotary", "base": 500.0}
_RMS = {"kind": "rmsnorm", "eps": 1e-5}
_GATED = {"kind": "glu", "activation": "silu", "hidden": 24}
_ALIBI = {"kind": "alibi"}
_EMBEDDED = {"after_embedding": True}

# By the class that carries them.
CARRIED: dict[str, list[dict[str, Any]]] = {
    "GPT2LMHeadModel": [
        {},
        {"bias": False},
        {"position": {"kind": "sinusoidal", "learned_scale": True}, "mlp": {"activation": "relu2"}, "bias": False},
        {"position": {"kind": "sinusoidal"}, "head": {"tied": False}, "attention": {"windows": [0, 0]}},
        {"position": {"kind": "none"}, "mlp": {"activation": "silu", "hidden": 24}, "norm": {"eps": 1e-6}},
        {"mlp": {"activation": "gelu_tanh"}, "attention": {"kv_heads": 2}},
    ],
    "LlamaForCausalLM": [
        {"position": _ROTARY, "norm": _RMS, "mlp": _GATED, "heads": 4, "attention": {"kv_heads": 2}},
        {"position": _ROTARY, "norm": _RMS, "mlp": _GATED, "bias": False, "head": {"tied": False}},
    ],
    "MistralForCausalLM": [
        {"position": _ROTARY, "norm": _RMS, "mlp": _GATED, "bias": False, "attention": {"windows": [3]}}
    ],
    "Qwen2ForCausalLM": [
        {"position": _ROTARY, "norm": _RMS, "mlp": _GATED, "bias": False, "attention": {"windows": [3, 0]}}
    ],
    "Qwen3ForCausalLM": [
        {
            "position": _ROTARY,
            "norm": {"kind": "rmsnorm", "eps": 1e-6},
            "mlp": _GATED,
            "bias": False,
            "attention": {"windows": [3, 0], "qk_norm": True},
        }
    ],
    "ArceeForCausalLM": [{"position": _ROTARY, "norm": _RMS, "mlp": {"activation": "relu2"}}],
    "GPTNeoXForCausalLM": [
        {"position": _ROTARY, "residual": "parallel"},
        {
            "position": _ROTARY,
            "residual": "parallel",
            "bias": False,
            "mlp": {"activation": "relu2", "hidden": 24},
            "head": {"tied": False},
        },
        {"position": _ROTARY, "bias": False},
    ],
    "Starcoder2ForCausalLM": [{"position": _ROTARY, "heads": 4, "attention": {"kv_heads": 2, "windows": [4]}}],
    "StableLmForCausalLM": [
        {"position": _ROTARY, "heads": 4, "attention": {"kv_heads": 2}, "mlp": _GATED, "bias": False},
        {"position": _ROTARY, "mlp": _GATED, "bias": False, "residual": "parallel"},
    ],
    "FalconForCausalLM": [
        {"position": _ROTARY, "heads": 4, "attention": {"kv_heads": 2}, "residual": "parallel"},
        {"position": _ROTARY, "heads": 4, "attention": {"kv_heads": 1}, "residual": "parallel", "bias": False},
    ],
    "MptForCausalLM": [
        {"position": _ALIBI, "bias": False},
        {"position": _ALIBI, "bias": False, "heads": 6, "dim": 24, "head": {"tied": False}},
    ],
    "BloomForCausalLM": [
        {"position": _ALIBI, "heads": 6, "dim": 24, "extra_norms": _EMBEDDED, "mlp": {"activation": "gelu_tanh"}},
        {"position": _ALIBI, "bias": False, "extra_norms": _EMBEDDED, "mlp": {"activation": "gelu_tanh"}},
    ],
    "DaybreakForCausalLM": [
        {"position": _ALIBI, "residual": "parallel", "heads": 6, "dim": 24, "extra_norms": _EMBEDDED},
        {
            "position": {"kind": "sinusoidal", "learned_scale": True},
            "mlp": {"kind": "glu", "activation": "gelu", "hidden": 24},
            "bias": False,
            "extra_norms": {"after_embedding": True, "shared": True, "over_logits": True},
        },
        {
            "layers": 5,
            "heads": 4,
            "bias": False,
            "embedding_skip": True,
            "position": _ROTARY,
            "norm": _RMS,
            "attention": {"qk_norm": True, "windows": [4, 5, 0, 3], "strides": [2, 0, 0, 0], "kv_heads": 2},
            "mlp": {"activation": "relu2"},
            "head": {"tied": False, "soft_cap": 15.0},
            "lookup": {"ngrams": [2, 3, 4], "rows": 300, "values": "alternate"},
        },
        {"lookup": {"ngrams": [2], "rows": 70_000, "values": "all"}},
        {"position": {"kind": "sinusoidal"}, "attention": {"windows": [3, 0]}},
    ],
}
EVERY = [(name, settings) for name, models in CARRIED.items() for settings in models]
CONTEXT = 24


def scrambled(**settings: Any) -> GPT:
    """Weights, biases, norms and scales all far from their initial values."""
    model = make_gpt(**{"context": CONTEXT, **settings})
    scramble(model)
    return model
