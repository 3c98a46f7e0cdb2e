"""GPT-2 with weights far from its initial ones."""

from typing import Any

import torch
from torch import nn

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
