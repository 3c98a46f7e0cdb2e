"""Which tokens may come next, each way by its paper: logits (B, V) to logits in which -inf leaves a token out.

Each reads what the one in front of it left over, and every row keeps at least one token.

Shape legend: B rows, V vocabulary.
"""

import torch
from torch import Tensor

_NEVER = float("-inf")


def penalise(logits_BV: Tensor, mentioned_BV: Tensor, penalty: float) -> Tensor:
    """Make tokens that were there before less likely (Keskar et al. 2019, "CTRL", section 4.1).

    The paper divides by the penalty, which would raise a negative logit; that one is multiplied, as is usual since.

    Args:
        mentioned_BV: whether the token was there.
    """
    penalised_BV = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return torch.where(mentioned_BV, penalised_BV, logits_BV)


def top_k(logits_BV: Tensor, k: int) -> Tensor:
    """Keep the k likeliest, and what is as likely as the last of them (Fan et al. 2018)."""
    if k >= logits_BV.shape[-1]:
        return logits_BV
    lowest_B1 = logits_BV.topk(k).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < lowest_B1, _NEVER)


def top_p(logits_BV: Tensor, p: float) -> Tensor:
    """Keep the fewest likeliest whose probabilities sum to p: the nucleus (Holtzman et al. 2019)."""
    return _keep_mass(logits_BV, -logits_BV, p)


def min_p(logits_BV: Tensor, p: float) -> Tensor:
    """Keep what is at least p times as likely as the likeliest (Nguyen et al. 2024, arXiv 2407.01082)."""
    probabilities_BV = logits_BV.softmax(-1)
    least_B1 = p * probabilities_BV.amax(-1, keepdim=True)
    return logits_BV.masked_fill(probabilities_BV < least_B1, _NEVER)


def typical(logits_BV: Tensor, p: float) -> Tensor:
    """Keep the fewest that sum to p of those whose surprise is nearest to the mean surprise, the entropy.

    Meister et al. 2022, "Locally typical sampling" (arXiv 2202.00666), section 4. The likeliest may be left out.
    """
    surprise_BV = -logits_BV.log_softmax(-1)
    return _keep_mass(logits_BV, (surprise_BV - _entropy(logits_BV)).abs(), p)


def eta(logits_BV: Tensor, epsilon: float) -> Tensor:
    """Keep probabilities above eta = min(epsilon, sqrt(epsilon) · exp(-entropy)).

    Hewitt et al. 2022, "Truncation sampling as language model desmoothing" (arXiv 2210.15191), section 4.
    """
    probabilities_BV = logits_BV.softmax(-1)
    eta_B1 = (epsilon**0.5 * (-_entropy(logits_BV)).exp()).clamp(max=epsilon)
    left_out_BV = (probabilities_BV <= eta_B1) & (logits_BV < logits_BV.amax(-1, keepdim=True))
    return logits_BV.masked_fill(left_out_BV, _NEVER)


def _keep_mass(logits_BV: Tensor, order_BV: Tensor, mass: float) -> Tensor:
    """Keep the first tokens by ascending `order_BV` until their probabilities sum to `mass`; at least one."""
    if mass == 1:
        return logits_BV
    index_BV = order_BV.argsort(dim=-1, stable=True)
    ordered_BV = logits_BV.softmax(-1).gather(-1, index_BV)
    left_out_BV = ordered_BV.cumsum(-1) - ordered_BV >= mass
    left_out_BV[:, 0] = False
    return logits_BV.masked_fill(torch.zeros_like(left_out_BV).scatter(-1, index_BV, left_out_BV), _NEVER)


def _entropy(logits_BV: Tensor) -> Tensor:
    """In nats, (B, 1)."""
    entropy_B1: Tensor = torch.special.entr(logits_BV.softmax(-1)).sum(-1, keepdim=True)
    return entropy_B1
