"""Small models that say what is wanted, and continuations made one at a time without any cache."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from daybreak.data.hashing import splitmix64
from daybreak.data.tokenizer import Tokenizer
from daybreak.model.cache import KeyValues
from daybreak.model.gpt import GPT, ModelConfig, build
from daybreak.sampling.choice import choose
from daybreak.sampling.generate import generate, make_row
from daybreak.sampling.settings import SamplingConfig

CONTEXT, VOCABULARY = 8, 23
CPU = torch.device("cpu")
GREEDY = SamplingConfig(greedy=True)


def config_of(vocab_size: int = VOCABULARY, **settings: Any) -> ModelConfig:
    sizes: dict[str, Any] = {"layers": 2, "heads": 2, "dim": 16, "context": CONTEXT, "vocab_size": vocab_size}
    return ModelConfig(**(sizes | {"initialisation": {"std": 0.3}} | settings))


def make_model(vocab_size: int = VOCABULARY, **settings: Any) -> GPT:
    return build(config_of(vocab_size, **settings), 0, CPU)


def ids(
    model: GPT,
    prompt: Sequence[int],
    tokens: int,
    sampling: SamplingConfig,
    *,
    count: int = 1,
    vocab_size: int = VOCABULARY,
) -> list[list[int]]:
    """The first `count` continuations of a prompt, made together."""
    return together(model, [(prompt, index, tokens) for index in range(count)], sampling, vocab_size=vocab_size)


def together(
    model: GPT,
    asked: Sequence[tuple[Sequence[int], int, int]],
    sampling: SamplingConfig,
    *,
    vocab_size: int = VOCABULARY,
    room: int | None = None,
) -> list[list[int]]:
    """Continuations of (prompt, index, tokens) each, made in one batch."""
    none = None if sampling.repetition_penalty == 1 else torch.zeros(vocab_size, dtype=torch.bool)
    rows = [
        make_row(prompt, index, tokens=tokens, sampling=sampling, mentioned=none) for prompt, index, tokens in asked
    ]
    made: dict[Any, list[int]] = {row: [] for row in rows}
    for step in generate(model, rows, vocab_size=vocab_size, sampling=sampling, room=room):
        for chosen in step:
            made[chosen.row].append(chosen.token)
    return list(made.values())


@torch.no_grad()
def one_without_cache(
    model: GPT,
    prompt: Sequence[int],
    index: int,
    tokens: int,
    sampling: SamplingConfig,
    *,
    vocab_size: int = VOCABULARY,
) -> list[int]:
    """The same, by the rule as it is told: the whole row anew for each token."""
    generator = torch.Generator().manual_seed(splitmix64(splitmix64(sampling.seed) ^ index) >> 1)
    context = model.config.context
    seen, made = list(prompt)[-context:], list[int]()
    for _ in range(tokens):
        mentioned = torch.zeros(1, vocab_size, dtype=torch.bool)
        mentioned[0, made] = True
        logits_BV = model.logits(torch.tensor([seen]))[:, -1, :vocab_size]
        (token,), _ = choose(logits_BV, sampling, [generator], mentioned)
        if len(seen) == context:
            seen = seen[context - context // 2 :]
        seen = [*seen, token]
        made.append(token)
    return made


class Scripted(GPT):
    """A model that says what it is told to, row by row, and 0 after that; remembers what it was shown.

    Rows of one prompt are read once, so that they begin alike.
    """

    def __init__(self, vocab_size: int, rows: Sequence[Sequence[int]]) -> None:
        super().__init__(config_of(vocab_size))
        self.rows, self.steps = rows, 0
        self.shown: list[Tensor] = []

    def next_logits(self, tokens_BT: Tensor, cache: KeyValues | None = None) -> Tensor:
        self.shown.append(tokens_BT)
        logits = torch.ones(*tokens_BT.shape, self.config.vocab_size)
        for row, script in enumerate(self.rows[: len(tokens_BT)]):
            logits[row, -1, script[self.steps] if self.steps < len(script) else 0] = 100.0
        self.steps += 1
        if cache is not None:
            for layer in range(self.config.layers):
                empty = torch.zeros(len(tokens_BT), 2, tokens_BT.shape[1], 8)
                cache.extend(layer, empty, empty)
            cache.advance(tokens_BT.shape[1])
        return logits[:, -1]


def scripted(tokenizer: Tokenizer, *rows: Sequence[int]) -> Scripted:
    return Scripted(tokenizer.vocab_size, rows)
