"""Text that a model goes on with until it says one of some strings: for benchmarks that read answers.

Shape legend: B prompts of one length, T tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import final

import torch

from daybreak.data.hashing import splitmix64
from daybreak.data.tokenizer import Tokenizer
from daybreak.hardware import PrecisionName, autocast
from daybreak.model.cache import Cache
from daybreak.model.gpt import GPT
from daybreak.sampling.choice import choose
from daybreak.sampling.settings import SamplingConfig

_PROMPTS_AT_ONCE = 32


@final
@dataclass(frozen=True)
class Prompt:
    """What to continue, and how far.

    Attributes:
        tokens: ids; there is room for `most` more in the context.
        stops: the continuation ends in front of the first of these, none of which is empty, or of end-of-text.
        sampling: how tokens are chosen.
    """

    tokens: tuple[int, ...]
    most: int
    stops: tuple[str, ...]
    sampling: SamplingConfig


def fitted(tokens: Sequence[int], most: int, context: int) -> tuple[tuple[int, ...], int]:
    """The end of a prompt, and how many tokens may follow, so that both fit into the context.

    What follows takes no more than half of the context from the prompt.
    """
    most = min(most, context - min(len(tokens), context // 2))
    return tuple(tokens[-(context - most) :]), most


@torch.no_grad()
def continuations(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    *,
    precision: PrecisionName = "fp32",
    advance: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """What follows each prompt, in their order. Prompts of one length pass through the model together.

    Args:
        advance: told how many prompts were done; what it raises ends the work.
    """

    def alike(index: int) -> tuple[int, int]:
        return len(prompts[index].tokens), prompts[index].most

    texts = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=alike, reverse=True)
    with autocast(model.embedding.weight.device, precision):
        for _, same in groupby(order, alike):
            members = list(same)
            for start in range(0, len(members), _PROMPTS_AT_ONCE):
                batch = members[start : start + _PROMPTS_AT_ONCE]
                for index, text in zip(batch, _together(model, tokenizer, prompts, batch), strict=True):
                    texts[index] = text
                advance(len(batch))
    return texts


def _together(model: GPT, tokenizer: Tokenizer, prompts: Sequence[Prompt], batch: Sequence[int]) -> list[str]:
    """The continuations of prompts that are equally long; prompt i draws from (seed, i)."""
    asked = [prompts[index] for index in batch]
    seeds = [splitmix64(splitmix64(prompts[index].sampling.seed) ^ index) >> 1 for index in batch]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    device = model.embedding.weight.device
    new_BT = torch.tensor([prompt.tokens for prompt in asked], device=device)
    cache = Cache(model.config.layers, len(asked[0].tokens) + asked[0].most)
    said = [b""] * len(asked)
    going_on = set(range(len(asked)))
    for _ in range(asked[0].most):
        logits_BV = model.next_logits(new_BT, cache)[:, : tokenizer.vocab_size].cpu()
        chosen = [
            choose(logits_BV[row : row + 1], prompt.sampling, [generator])[0][0]
            for row, (prompt, generator) in enumerate(zip(asked, generators, strict=True))
        ]
        for row in sorted(going_on):
            if chosen[row] == tokenizer.end_of_text:
                going_on.remove(row)
                continue
            said[row] += tokenizer.decode_bytes([chosen[row]])
            if any(stop.encode() in said[row] for stop in asked[row].stops):
                going_on.remove(row)
        if not going_on:
            break
        new_BT = torch.tensor(chosen, device=device)[:, None]
    return [
        _until(text.decode("utf-8", errors="replace"), prompt.stops) for text, prompt in zip(said, asked, strict=True)
    ]


def _until(text: str, stops: Sequence[str]) -> str:
    """What stands in front of the first stop."""
    ends = [text.index(stop) for stop in stops if stop in text]
    return text[: min(ends, default=len(text))]
