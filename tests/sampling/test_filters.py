"""Each way to leave tokens out: against its paper written out for one row, and against `transformers`."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from daybreak.sampling import filters
from daybreak.sampling.choice import kept_probabilities
from daybreak.sampling.settings import SamplingConfig

VOCABULARY, NEVER = 23, -math.inf
SLACK = 1e-4  # a sum in fp32 against one in fp64
some_logits = 3 * torch.randn(6, VOCABULARY, generator=torch.Generator().manual_seed(0))
some_logits[4, 10:] = NEVER
some_logits[5, 1:] = NEVER

logits_lists = st.lists(
    st.one_of(st.floats(-20, 20, width=32), st.sampled_from([0.0, 1.0, 2.0, NEVER, -1e30, 1e30, 3e38])),
    min_size=1,
    max_size=30,
).filter(lambda logits: max(logits) > NEVER)
shares = st.sampled_from([0.001, 0.05, 0.2, 0.5, 0.9, 0.999])


def probabilities_of(logits: list[float]) -> list[float]:
    largest = max(logits)
    weights = [math.exp(logit - largest) for logit in logits]
    return [weight / math.fsum(weights) for weight in weights]


def entropy_of(probabilities: list[float]) -> float:
    return -math.fsum(p * math.log(p) for p in probabilities if p > 0)


def kept(filtered: Tensor) -> set[int]:
    """What a filter of one row left, which it may not have changed."""
    return set((filtered[0] > NEVER).nonzero().flatten().tolist())


def run(way: Callable[[Tensor, Any], Tensor], logits: list[float], setting: float) -> set[int]:
    given_BV = torch.tensor([logits])
    filtered_BV = way(given_BV, setting)
    left = kept(filtered_BV)
    assert left
    assert left <= {index for index, logit in enumerate(logits) if logit > NEVER}
    assert all(filtered_BV[0, index] == given_BV[0, index] for index in left)
    return left


@settings(max_examples=60, deadline=None)
@given(logits_lists, st.integers(1, 40))
def test_top_k_keeps_the_k_likeliest_and_their_equals(logits: list[float], k: int) -> None:
    rounded = torch.tensor(logits).tolist()
    kth = sorted(rounded, reverse=True)[min(k, len(logits)) - 1]
    expected = {index for index, logit in enumerate(rounded) if logit >= kth and logit > NEVER}
    assert run(filters.top_k, logits, k) == expected


@settings(max_examples=100, deadline=None)
@given(logits_lists, shares)
def test_top_p_keeps_the_fewest_likeliest_that_sum_to_p(logits: list[float], p: float) -> None:
    probabilities = probabilities_of(logits)
    left = run(filters.top_p, logits, p)
    masses = sorted(probabilities[index] for index in left)
    assert math.fsum(masses) >= p - SLACK
    assert math.fsum(masses[1:]) < p + SLACK
    assert all(probabilities[index] <= masses[0] for index in set(range(len(logits))) - left)


@settings(max_examples=100, deadline=None)
@given(logits_lists, shares)
def test_min_p_keeps_what_is_p_times_as_likely_as_the_likeliest(logits: list[float], p: float) -> None:
    probabilities = probabilities_of(logits)
    least = p * max(probabilities)
    left = run(filters.min_p, logits, p)
    assert {i for i, each in enumerate(probabilities) if each > least * (1 + SLACK)} <= left
    assert left <= {i for i, each in enumerate(probabilities) if each >= least * (1 - SLACK)}


@settings(max_examples=100, deadline=None)
@given(logits_lists, shares)
def test_typical_keeps_the_fewest_nearest_to_the_entropy_that_sum_to_p(logits: list[float], p: float) -> None:
    probabilities = probabilities_of(logits)
    entropy = entropy_of(probabilities)
    distances = [abs(-math.log(each) - entropy) if each > 0 else math.inf for each in probabilities]
    left = run(filters.typical, logits, p)
    farthest = max(left, key=lambda index: distances[index])
    mass = math.fsum(probabilities[index] for index in left)
    assert mass >= p - SLACK
    assert mass - probabilities[farthest] < p + SLACK
    nearest_left_out = min((distances[i] for i in set(range(len(logits))) - left), default=math.inf)
    assert distances[farthest] <= nearest_left_out + SLACK * max(1, distances[farthest])


@settings(max_examples=100, deadline=None)
@given(logits_lists, shares)
def test_eta_keeps_probabilities_above_a_cut_off_that_falls_with_the_entropy(
    logits: list[float], epsilon: float
) -> None:
    probabilities = probabilities_of(logits)
    eta = min(epsilon, math.sqrt(epsilon) * math.exp(-entropy_of(probabilities)))
    left = run(filters.eta, logits, epsilon)
    likeliest = {i for i, each in enumerate(probabilities) if each == max(probabilities)}
    assert {i for i, each in enumerate(probabilities) if each > eta * (1 + SLACK)} <= left
    assert left - likeliest <= {i for i, each in enumerate(probabilities) if each > eta * (1 - SLACK)}
    assert left & likeliest


def test_eta_is_a_cut_off_on_probabilities_and_not_on_logits() -> None:
    """The paper's two regimes: of a sharp distribution epsilon decides, of a flat one the entropy."""
    sharp = torch.tensor([[0.97, 0.02, 0.0095, 0.0005]]).log() - 50  # logits far below any probability
    assert kept(filters.eta(sharp, 0.01)) == {0, 1}
    assert kept(filters.eta(sharp, 0.0001)) == {0, 1, 2, 3}
    flat = torch.zeros(1, 1000)
    flat[0, 0] = -1.0
    assert kept(filters.eta(flat, 0.01)) == set(range(1000))  # eta = 0.1 / 1000, though 0.01 exceeds each
    assert filters.eta(flat, 0.9999).isfinite().sum() == 999


def test_typical_may_leave_out_the_likeliest() -> None:
    logits = torch.tensor([[0.6, 0.1, 0.1, 0.1, 0.1]]).log()  # 0.51 nats where the mean is 1.23, and 2.3
    assert kept(filters.typical(logits, 0.2)) == {0}
    logits = torch.tensor([[0.4, *[0.02] * 5, *[0.1] * 5]]).log()  # 0.9 nats where the mean is 1.9; the tenths have 2.3
    assert kept(filters.typical(logits, 0.45)) == {6, 7, 8, 9, 10}


@pytest.mark.parametrize("penalty", [0.8, 1.2, 2.0])
def test_a_penalty_lowers_what_was_there_whatever_its_sign(penalty: float) -> None:
    logits = torch.tensor([[2.0, -2.0, 0.0, 3.0, NEVER]])
    there = torch.tensor([[True, True, True, False, True]])
    expected = [2.0 / penalty, -2.0 * penalty, 0.0, 3.0, NEVER]
    torch.testing.assert_close(filters.penalise(logits, there, penalty), torch.tensor([expected]))


ways = {
    "top_k": [1, 5, VOCABULARY, 1000],
    "top_p": [0.01, 0.3, 0.9, 0.999],
    "min_p": [0.01, 0.1, 0.7, 1.0],
    "typical_p": [0.1, 0.5, 0.95],
    "eta_cutoff": [0.0003, 0.02, 0.5],
}


def scores_of_transformers(logits_BV: Tensor, sampling: SamplingConfig) -> Tensor:
    """By its own processors, in the order in which `generate` applies them."""
    import transformers as hf

    processors = hf.LogitsProcessorList([hf.TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k is not None:
        processors.append(hf.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p is not None:
        processors.append(hf.TopPLogitsWarper(sampling.top_p))
    if sampling.min_p is not None:
        processors.append(hf.MinPLogitsWarper(sampling.min_p))
    if sampling.typical_p is not None:
        processors.append(hf.TypicalLogitsWarper(sampling.typical_p))
    if sampling.eta_cutoff is not None:
        processors.append(hf.EtaLogitsWarper(sampling.eta_cutoff))
    scores_BV: Tensor = processors(torch.zeros(len(logits_BV), 1, dtype=torch.long), logits_BV)
    return scores_BV


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize(("way", "value"), [(way, value) for way, values in ways.items() for value in values])
def test_what_is_kept_is_what_transformers_keeps(temperature: float, way: str, value: float) -> None:
    sampling = SamplingConfig(temperature=temperature, **{way: value})
    expected = scores_of_transformers(some_logits, sampling).softmax(-1)
    torch.testing.assert_close(kept_probabilities(some_logits, sampling), expected)


def test_transformers_applies_its_processors_in_our_order() -> None:
    from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=8, n_layer=1, n_head=1))
    asked = GenerationConfig(
        do_sample=True,
        repetition_penalty=1.2,
        temperature=0.7,
        top_k=9,
        top_p=0.9,
        min_p=0.1,
        typical_p=0.9,
        eta_cutoff=0.1,
    )
    asked._eos_token_tensor = None
    processors = model._get_logits_processor(asked, input_ids_seq_length=1)
    assert [type(each).__name__ for each in processors] == [
        "RepetitionPenaltyLogitsProcessor",
        "TemperatureLogitsWarper",
        "TopKLogitsWarper",
        "TopPLogitsWarper",
        "MinPLogitsWarper",
        "TypicalLogitsWarper",
        "EtaLogitsWarper",
    ]


@pytest.mark.parametrize("seed", range(20))
def test_all_together_are_what_transformers_makes_of_them(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(5, 400, generator=generator)
    picks = torch.rand(5, generator=generator).tolist()
    sampling = SamplingConfig(
        temperature=0.4 + picks[0],
        top_k=50 + int(200 * picks[1]),
        top_p=0.7 + 0.2 * picks[2],
        min_p=0.02 * picks[3] + 0.001,
        typical_p=0.6 + 0.3 * picks[4],
        eta_cutoff=0.01,
    )
    expected = scores_of_transformers(logits, sampling).softmax(-1)
    torch.testing.assert_close(kept_probabilities(logits, sampling), expected)


def test_the_penalty_is_that_of_transformers() -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    there = torch.tensor([[3, 7, 3], [0, 1, 2], [5, 5, 5], [9, 8, 7], [1, 2, 3], [0, 0, 0]])
    mentioned = torch.zeros(6, VOCABULARY, dtype=torch.bool).scatter(1, there, True)
    expected = RepetitionPenaltyLogitsProcessor(1.3)(there, some_logits)
    torch.testing.assert_close(filters.penalise(some_logits, mentioned, 1.3), expected)


@pytest.mark.parametrize("way", ["top_p", "min_p", "typical_p"])
def test_a_share_of_one_keeps_all_or_only_the_likeliest(way: str) -> None:
    kept_BV = kept_probabilities(some_logits, SamplingConfig(**{way: 1.0}))
    if way == "min_p":
        assert (kept_BV > 0).sum(-1).tolist() == [1] * 6
    else:
        torch.testing.assert_close(kept_BV, some_logits.softmax(-1))


@pytest.mark.parametrize("temperature", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("scale", [1.0, 1e30, 1e38])
def test_nothing_overflows(temperature: float, scale: float) -> None:
    logits = scale * torch.tensor([[-1.0, 0.5, 1.0, NEVER]])
    for settings_of_it in ({}, {"typical_p": 0.9}, {"eta_cutoff": 0.01}, {"min_p": 0.1}, {"top_p": 0.9, "top_k": 3}):
        kept_BV = kept_probabilities(logits, SamplingConfig(temperature=temperature, **settings_of_it))
        assert kept_BV.sum().item() == pytest.approx(1)
        assert kept_BV[0, 3] == 0
        assert kept_BV[0].argmax() == 2
