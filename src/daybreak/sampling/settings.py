"""How the next token is chosen, and what is sampled while training."""

from typing import Self, final

from pydantic import Field, model_validator

from daybreak.configuration import Configuration
from daybreak.duration import IntervalField


@final
class SamplingConfig(Configuration):
    """How the next token is chosen. Settings are applied in this order, each to what the one before it left.

    Attributes:
        repetition_penalty: above 1, tokens of the prompt and of what followed become less likely by it (Keskar et al.
            2019, "CTRL").
        temperature: logits are divided by it; below 1 keeps to likelier tokens.
        top_k: only the k likeliest tokens (Fan et al. 2018).
        top_p: only the fewest likeliest tokens whose probabilities sum to p (Holtzman et al. 2019).
        min_p: only tokens at least p times as likely as the likeliest (Nguyen et al. 2024).
        typical_p: only the fewest tokens that sum to p, whose surprise is nearest to the mean (Meister et al. 2022).
        eta_cutoff: only tokens likelier than epsilon, or than sqrt(epsilon) exp(-entropy) if that is less (Hewitt et
            al. 2022).
        greedy: always the likeliest; excludes all settings above but the penalty.
        seed: the same seed gives the same text; the i-th continuation of a prompt is drawn from (seed, i).
    """

    repetition_penalty: float = Field(default=1.0, gt=0)
    temperature: float = Field(default=1.0, ge=1e-3)
    top_k: int | None = Field(default=None, gt=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    min_p: float | None = Field(default=None, gt=0, le=1)
    typical_p: float | None = Field(default=None, gt=0, le=1)
    eta_cutoff: float | None = Field(default=None, gt=0, lt=1)
    greedy: bool = False
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _greedy_draws_nothing(self) -> Self:
        filters = (self.top_k, self.top_p, self.min_p, self.typical_p, self.eta_cutoff)
        if self.greedy and (self.temperature != 1.0 or any(each is not None for each in filters)):
            raise ValueError(
                "greedy takes the likeliest token; it excludes temperature, top-k, top-p, min-p, typical-p and "
                "eta-cutoff"
            )
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
