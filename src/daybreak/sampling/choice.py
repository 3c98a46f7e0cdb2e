"""Which token comes next, of a row of logits.

Shape legend: B rows, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from daybreak.errors import UserError
from daybreak.sampling.settings import SamplingConfig


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
