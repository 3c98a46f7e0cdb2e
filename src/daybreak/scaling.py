"""What loss to expect of a model after so many tokens: a law fitted to this project's own runs (`fit/`).

L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models",
equation 2), where N is a sixth of the training FLOPs a token, so that 6 N D are the FLOPs of a run, and D its tokens.
"""

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Self, final

from daybreak.model.gpt import ModelConfig
from daybreak.training.flops import flops_per_token

_REPEATS_DECAY, _EXCESS_DECAY = 15.39, 5.31  # R*_D and R*_N there


@final
@dataclass(frozen=True)
class LossLaw:
    """A fitted law, in nats a token.

    Attributes:
        irreducible, a, alpha, b, beta: E, A, alpha, B and beta.
        residual: standard deviation of what it says of runs that were left out of the fit, in nats.
        least_flops, most_flops: of the runs that it was fitted to.
        text: what they read.
        tokenizer, bytes_per_token: of that text.
    """

    irreducible: float
    a: float
    alpha: float
    b: float
    beta: float
    residual: float
    least_flops: float
    most_flops: float
    text: str
    tokenizer: str
    bytes_per_token: float

    @classmethod
    @cache
    def fitted(cls) -> Self:
        """The law that comes with the package; `make fit` makes it again."""
        return cls(**json.loads(files("daybreak").joinpath("laws.json").read_text(encoding="utf-8"))["loss"])

    def loss(self, n: float, tokens: float) -> float:
        """Expected validation loss in nats a token, the learning rate fully decayed."""
        return float(self.irreducible + self.a / n**self.alpha + self.b / tokens**self.beta)

    def band(self, n: float, tokens: float) -> float:
        """Half the width of a 95 % band, in nats; it widens with the distance from what was fitted."""
        flops = 6 * n * tokens
        beyond = max(0.0, math.log(flops / self.most_flops), math.log(self.least_flops / flops))
        return 2 * self.residual * (1 + beyond)

    def best_n(self, flops: float) -> float:
        """The N that has the lowest loss after so many FLOPs (equation 4 there)."""
        return float(self._balance * (flops / 6) ** (self.beta / (self.alpha + self.beta)))

    def best_tokens(self, n: float) -> float:
        """The tokens for which an N is the best that its FLOPs buy."""
        return float((n / self._balance) ** ((self.alpha + self.beta) / self.beta) / n)

    def best_n_for(self, tokens: float) -> float:
        """The N for which so many tokens are the best use of its FLOPs."""
        return float((tokens * self._balance ** ((self.alpha + self.beta) / self.beta)) ** (self.beta / self.alpha))

    @property
    def _balance(self) -> float:
        return float((self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta)))


def loss_of_repeats(law: LossLaw, n: float, tokens: float, unique: float) -> float:
    """Expected loss where `tokens` repeat `unique` ones.

    Muennighoff et al. 2023, "Scaling Data-Constrained Language Models", equations 5 and 6 with the constants of their
    fit: repeated tokens, and parameters beyond those that the unique tokens are best spent on, are worth less and less.
    They count such parameters from the first token; the law here was fitted without, so that is faded in over the
    first repeats.
    """
    if tokens <= unique:
        return law.loss(n, tokens)
    fresh = law.best_n_for(unique)
    fed = fresh + max(0.0, n - fresh) * math.exp(1 - tokens / unique)
    return law.loss(_worth(n, fed, _EXCESS_DECAY), _worth(tokens, unique, _REPEATS_DECAY))


def _worth(amount: float, fresh: float, decay: float) -> float:
    """How much of what is fresh an amount is worth that goes beyond it."""
    beyond = max(0.0, amount / fresh - 1)
    return min(amount, fresh) - fresh * decay * math.expm1(-beyond / decay)


def n_of(model: ModelConfig, length: int) -> float:
    """A sixth of the FLOPs that training on a token takes in rows of `length` tokens."""
    return flops_per_token(model, length) / 6
