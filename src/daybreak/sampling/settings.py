"""How the next token is chosen, and what is sampled while training."""

from typing import Self, final

from pydantic import Field, model_validator

from daybreak.configuration import Configuration
from daybreak.duration import IntervalField


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
    """Samples while training: how often (never, unless said), of what, how long."""

    every: IntervalField = None
    prompt: str = ""
    tokens: int = Field(default=100, gt=0)
    sampling: SamplingConfig = SamplingConfig(temperature=0.8)
