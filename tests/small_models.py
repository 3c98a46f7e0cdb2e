"""Small models to measure text with."""

from pathlib import Path
from typing import Any

import torch

from daybreak.data.tokenizer import END_OF_TEXT, GPT2_PATTERN, Tokenizer, byte_tokenizer
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


def save_bytes_tokenizer(folder: Path, **specials: str) -> Tokenizer:
    """A tokenizer of bytes as transformers has it, and ours of the same ids."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fast = Fast(models.BPE(vocab={sign: index for index, sign in enumerate(alphabet)}, merges=[]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    names = specials or {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    PreTrainedTokenizerFast(tokenizer_object=fast, **names).save_pretrained(folder)
    ranks = {}
    for character in map(chr, range(0x110)):
        for sign, byte in zip(fast.encode(character).ids, character.encode(), strict=True):
            ranks[bytes([byte])] = sign
    # Of UTF-8 some bytes never occur; any ids left will do for them.
    left = [index for index in range(256) if index not in ranks.values()]
    missing = [bytes([value]) for value in range(256) if bytes([value]) not in ranks]
    ranks |= dict(zip(missing, left, strict=True))
    return Tokenizer("same", GPT2_PATTERN, ranks, {END_OF_TEXT: 256})
