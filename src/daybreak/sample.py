"""Next tokens from a model: greedy or drawn, with a cache, one position at a time."""

import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self, final

import torch
from pydantic import Field, model_validator
from torch import Tensor

from daybreak.configuration import Configuration
from daybreak.data.hashing import splitmix64
from daybreak.data.tokenizer import Tokenizer
from daybreak.duration import Duration, IntervalField
from daybreak.errors import UserError
from daybreak.model.cache import Cache
from daybreak.model.gpt import GPT


@final
class SamplingConfig(Configuration):
    """How the next token is chosen.

    Attributes:
        temperature: logits are divided by it; below 1 keeps to likelier tokens.
        top_k: only the k likeliest tokens.
        top_p: only the fewest likeliest tokens whose probabilities sum to p (Holtzman et al. 2019).
        greedy: always the likeliest; excludes the settings above.
        seed: the same seed gives the same text; continuation i is drawn from (seed, i).
    """

    temperature: float = Field(default=1.0, ge=1e-3)
    top_k: int | None = Field(default=None, gt=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    greedy: bool = False
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _greedy_draws_nothing(self) -> Self:
        if self.greedy and (self.temperature != 1.0 or self.top_k or self.top_p):
            raise ValueError("greedy takes the likeliest token; it excludes temperature, top-k and top-p")
        return self


@final
class SamplesConfig(Configuration):
    """Samples while training: how often (never, unless said), of what, how long.

    Attributes:
        every: how often one is drawn.
        prompt: what it continues; a document's beginning unless given.
        tokens: how many are made.
        sampling: how each is chosen.
    """

    every: IntervalField = None
    prompt: str = ""
    tokens: int = Field(default=100, gt=0)
    sampling: SamplingConfig = SamplingConfig(temperature=0.8)


@final
@dataclass(frozen=True)
class Sampler:
    """Draws the same kind of sample from a model again and again, as during training.

    Attributes:
        every: how often a training run draws one; None for never.
    """

    every: Duration | None
    tokenizer: Tokenizer
    prompt: str
    tokens: int
    sampling: SamplingConfig

    def draw(self, model: GPT) -> str:
        """One continuation, with its prompt."""
        made = continue_text(model, self.tokenizer, self.prompt, tokens=self.tokens, sampling=self.sampling)
        return made[0].text


@final
@dataclass(frozen=True)
class Continuation:
    """A prompt and what followed; `ended` says that the model ended the text itself."""

    prompt: str
    completion: str
    ended: bool

    @property
    def text(self) -> str:
        return self.prompt + self.completion


def continue_text(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    tokens: int,
    count: int = 1,
    sampling: SamplingConfig,
    stream: Callable[[str], None] | None = None,
) -> list[Continuation]:
    """Continue a text, from the beginning of a document.

    Args:
        stream: given each new bit of the first continuation as it is made.
    """
    prompt = prompt.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    ids = [tokenizer.end_of_text, *tokenizer.encode(prompt).tolist()]
    decoders = [codecs.getincrementaldecoder("utf-8")(errors="replace") for _ in range(count)]
    texts, ended = [""] * count, [False] * count
    steps = generate(model, ids, tokens=tokens, count=count, vocab_size=tokenizer.vocab_size, sampling=sampling)
    for chosen_B in steps:
        for row, token in enumerate(chosen_B.tolist()):
            ended[row] = ended[row] or token == tokenizer.end_of_text
            if ended[row]:
                continue
            bit = decoders[row].decode(tokenizer.decode_bytes([token]))
            texts[row] += bit
            if stream is not None and row == 0:
                stream(bit)
        if all(ended):
            break
    for row, decoder in enumerate(decoders):  # a text may break off within a character
        bit = decoder.decode(b"", final=True)
        texts[row] += bit
        if stream is not None and row == 0 and bit:
            stream(bit)
    return [Continuation(prompt, text, end) for text, end in zip(texts, ended, strict=True)]


@torch.no_grad()
def generate(
    model: GPT,
    prompt: Sequence[int],
    *,
    tokens: int,
    count: int = 1,
    vocab_size: int,
    sampling: SamplingConfig,
    cached: bool = True,
) -> Iterator[Tensor]:
    """Continue a prompt `count` times at once.

    When the model's context is full, what it sees is cut to the later half, and it goes on from there.

    Args:
        prompt: ids; its last `context` are seen.
        tokens: how many to make.
        vocab_size: ids from here on are padding and are never chosen.
        cached: keep keys and values; without, every position is computed anew, with the same outcome.

    Yields:
        The next id of each continuation, (count,), on the CPU.
    """
    device, context = model.embedding.weight.device, model.config.context
    seeds = [splitmix64(splitmix64(sampling.seed) ^ row) >> 1 for row in range(count)]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    seen_BT = torch.tensor([list(prompt)[-context:]] * count, device=device)
    cache = Cache(model.config.layers, context) if cached else None
    new_BT = seen_BT
    for _ in range(tokens):
        logits_BV = model.next_logits(new_BT if cached else seen_BT, cache)[:, :vocab_size]
        chosen_B = choose(logits_BV.cpu(), sampling, generators)
        yield chosen_B
        if seen_BT.shape[1] == context:
            seen_BT = seen_BT[:, context - context // 2 :]
            cache = Cache(model.config.layers, context) if cached else None
        new_BT = chosen_B.to(device)[:, None]
        seen_BT = torch.cat((seen_BT, new_BT), dim=1)
        if cache is not None and cache.length == 0:
            new_BT = seen_BT


def choose(logits_BV: Tensor, sampling: SamplingConfig, generators: Sequence[torch.Generator]) -> Tensor:
    """One id a row, (B,); row i draws from generator i.

    Raises:
        UserError: the predictions are not numbers, since the model has diverged.
    """
    if not logits_BV.amax().isfinite():
        raise UserError(
            "the model's predictions are not numbers: its training has diverged, and nothing can be sampled"
        )
    if sampling.greedy:
        return logits_BV.argmax(-1)
    probabilities_BV = kept_probabilities(logits_BV, sampling)
    # One uniform number a row, looked up in the cumulative sums: `torch.multinomial` draws one for every word.
    cumulative_BV = probabilities_BV.cumsum(-1, dtype=torch.float64)
    uniform_B1 = torch.stack([torch.rand(1, dtype=torch.float64, generator=each) for each in generators])
    return torch.searchsorted(cumulative_BV, uniform_B1 * cumulative_BV[:, -1:], right=True).squeeze(1)


def kept_probabilities(logits_BV: Tensor, sampling: SamplingConfig) -> Tensor:
    """Probabilities after temperature, top-k and top-p, in that order; zero where a token is left out."""
    logits_BV = logits_BV.float() / sampling.temperature
    if sampling.top_k and sampling.top_k < logits_BV.shape[-1]:
        lowest_kept = logits_BV.topk(sampling.top_k).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < lowest_kept, float("-inf"))
    probabilities_BV = logits_BV.softmax(-1)
    if sampling.top_p:
        ordered, index = probabilities_BV.sort(descending=True, stable=True)
        likelier_sum = ordered.cumsum(-1) - ordered
        left_out = likelier_sum >= sampling.top_p
        left_out[:, 0] = False  # the likeliest always stays
        ordered = ordered.masked_fill(left_out, 0.0)
        probabilities_BV = torch.zeros_like(ordered).scatter(-1, index, ordered)
        probabilities_BV /= probabilities_BV.sum(-1, keepdim=True)
    return probabilities_BV
