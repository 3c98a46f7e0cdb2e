"""Small models to measure text with."""

from typing import Any

import torch

from daybreak.data.tokenizer import Tokenizer, byte_tokenizer
from daybreak.evaluate.language_model import DaybreakModel
from daybreak.model.gpt import GPT, ModelConfig, build

CPU = torch.device("cpu")
CONTEXT = 8


def make_gpt(**settings: Any) -> GPT:
    sizes: dict[str, Any] = {"layers": 2, "heads": 2, "dim": 16, "context": CONTEXT, "vocab_size": 264}
    return build(ModelConfig(**(sizes | {"initialisation": {"std": 0.3}} | settings)), 0, CPU)


def make_model(
    gpt: GPT | None = None, tokenizer: Tokenizer | None = None, *, tokens_at_once: int = 20, **settings: Any
) -> DaybreakModel:
    """Of bytes, unless another tokenizer is given; seven ids more than it has are padding."""
    return DaybreakModel.of(
        gpt or make_gpt(**settings),
        tokenizer or byte_tokenizer(),
        name="small",
        context=CONTEXT,
        tokens_at_once=tokens_at_once,
        device=CPU,
        precision="fp32",
    )
