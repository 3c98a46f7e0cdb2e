"""The same kind of sample again and again, as while training."""

from dataclasses import dataclass
from typing import final

from daybreak.data.tokenizer import Tokenizer
from daybreak.duration import Duration
from daybreak.model.gpt import GPT
from daybreak.sampling.settings import SamplingConfig
from daybreak.sampling.text import continue_texts


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
        made = continue_texts(model, self.tokenizer, [self.prompt], tokens=self.tokens, sampling=self.sampling)
        return made[0].text
