"""A GPT-2 with random weights, and tokenizers of ours as those of `transformers`."""

from pathlib import Path
from typing import Any

import torch

from daybreak.model.gpt import GPT, ModelConfig, build


def random_gpt2(**settings: Any) -> GPT:
    """Weights, biases and norms all far from their initial values, so that answers differ from one another."""
    sizes: dict[str, Any] = {"layers": 2, "heads": 4, "dim": 32, "context": 128, "vocab_size": 257}
    config = ModelConfig(**(sizes | {"mlp": {"activation": "gelu_tanh"}} | settings))
    model = build(config, 0, torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def byte_tokenizer_of_transformers() -> Any:
    """Ids 0 to 255 are bytes, 256 is end-of-text, as in our own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = _characters_of_bytes()
    vocabulary = {character: byte for byte, character in alphabet.items()} | {"<|endoftext|>": 256}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, bos_token=end, pad_token=end)


def gpt2_tokenizer_of_transformers(folder: Path) -> Any:
    """From the ranks that OpenAI published."""
    from transformers import GPT2TokenizerFast

    return GPT2TokenizerFast(vocab=str(folder / "encoder.json"), merges=str(folder / "vocab.bpe"))


def _characters_of_bytes() -> dict[int, str]:
    """The printable character that stands for each byte in GPT-2's files."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(others)}
