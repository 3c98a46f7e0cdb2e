"""Which token comes next, of a row of logits.

Shape legend: B rows, V vocabulary.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from daybreak.errors import UserError
from daybreak.sampling import filters
from daybreak.sampling.settings import SamplingConfig


def choose(
    logits_BV: Tensor,
    sampling: SamplingConfig,
    generators: Sequence[torch.Generator],
    mentioned_BV: Tensor | None = None,
) -> tuple[list[int], list[float]]:
    """One id a row, and its log-probability in nats, at temperature 1 and before any filter or penalty.

    Args:
        generators: what each row is drawn from, on the CPU.
        mentioned_BV: which tokens the repetition penalty is for; none unless given.

    Raises:
        UserError: the predictions are not numbers, since the model has diverged.
    """
    logits_BV = logits_BV.float()
    log_probabilities_BV = logits_BV.log_softmax(-1)
    wanted_BV = logits_BV
    if mentioned_BV is not None and sampling.repetition_penalty != 1:
        wanted_BV = filters.penalise(logits_BV, mentioned_BV, sampling.repetition_penalty)
    if sampling.greedy:
        chosen_B1 = wanted_BV.argmax(-1, keepdim=True)
    else:
        if wanted_BV is logits_BV:  # normalised already
            wanted_BV = log_probabilities_BV
        chosen_B1 = _draw(kept_probabilities(wanted_BV, sampling), generators)
    log_probabilities: list[float] = log_probabilities_BV.gather(1, chosen_B1)[:, 0].tolist()
    if not all(map(math.isfinite, log_probabilities)):
        raise UserError(
            "the model's predictions are not numbers: its training has diverged, and nothing can be sampled"
        )
    return chosen_B1[:, 0].tolist(), log_probabilities


def kept_probabilities(logits_BV: Tensor, sampling: SamplingConfig) -> Tensor:
    """Probabilities of what the settings keep, (B, V); zero where a token is left out.

    They are applied in the order in which they stand, each to what the one before it left, as in `transformers`.
    """
    if sampling.temperature != 1:  # the largest is made 0, so that nothing overflows
        logits_BV = (logits_BV - logits_BV.amax(-1, keepdim=True)) / sampling.temperature
    if sampling.top_k is not None:
        logits_BV = filters.top_k(logits_BV, sampling.top_k)
    if sampling.top_p is not None:
        logits_BV = filters.top_p(logits_BV, sampling.top_p)
    if sampling.min_p is not None:
        logits_BV = filters.min_p(logits_BV, sampling.min_p)
    if sampling.typical_p is not None:
        logits_BV = filters.typical(logits_BV, sampling.typical_p)
    if sampling.eta_cutoff is not None:
        logits_BV = filters.eta(logits_BV, sampling.eta_cutoff)
    return logits_BV.softmax(-1)


def _draw(probabilities_BV: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """An id of each row, (B, 1), by its probability.

    One uniform number a row is looked up in the cumulative sums: `torch.multinomial` draws one for every word.
    """
    cumulative_BV = probabilities_BV.cumsum(-1, dtype=torch.float64)
    uniform_B1 = torch.stack([torch.rand(1, dtype=torch.float64, generator=each) for each in generators])
    wanted_B1 = uniform_B1.to(cumulative_BV.device) * cumulative_BV[:, -1:]
    return torch.searchsorted(cumulative_BV, wanted_B1, right=True).clamp_(max=probabilities_BV.shape[1] - 1)
