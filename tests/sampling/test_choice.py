"""What is drawn: by its probability, and never what has none."""

import math
from typing import Any

import pytest
import torch

from daybreak.errors import UserError
from daybreak.sampling.choice import choose
from daybreak.sampling.settings import SamplingConfig

GREEDY = SamplingConfig(greedy=True)


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(row) for row in range(count)]


def test_draws_have_the_probabilities_kept() -> None:
    draws, sampling = 4000, SamplingConfig(temperature=1.5, top_k=4)
    logits = torch.tensor([2.0, 1.0, 0.0, 1.5, -1.0, -3.0])
    chosen, _ = choose(logits.expand(draws, -1), sampling, generators(draws))
    shares = torch.tensor(chosen).bincount(minlength=6) / draws
    expected = torch.tensor([2.0, 1.0, 0.0, 1.5, -torch.inf, -torch.inf]).div(1.5).softmax(-1)
    error = (expected * (1 - expected) / draws).sqrt()
    assert ((shares - expected).abs() <= 5 * error).all()


def test_what_has_no_probability_is_never_drawn() -> None:
    logits = torch.full((500, 9), -torch.inf)
    logits[:, [2, 5]] = 0.0  # with words of no probability first, between and last
    assert set(choose(logits, SamplingConfig(), generators(500))[0]) == {2, 5}


@pytest.mark.parametrize(
    "sampling",
    [
        GREEDY,
        SamplingConfig(),
        SamplingConfig(temperature=0.5, top_k=3, top_p=0.5, min_p=0.9, typical_p=0.1, eta_cutoff=0.9),
    ],
)
def test_the_only_token_left_is_taken_for_certain(sampling: SamplingConfig) -> None:
    logits = torch.full((3, 5), -torch.inf)
    logits[[0, 1, 2], [4, 0, 2]] = torch.tensor([-1e30, 0.0, 7.0])
    assert choose(logits, sampling, generators(3)) == ([4, 0, 2], [0.0, 0.0, 0.0])


@pytest.mark.parametrize("sampling", [GREEDY, SamplingConfig(temperature=0.1, top_k=2, repetition_penalty=1.5)])
def test_log_probabilities_are_those_before_any_setting(sampling: SamplingConfig) -> None:
    logits = torch.tensor([[math.log(0.5), math.log(0.3), math.log(0.2)]]) + 12
    (token,), (log_probability,) = choose(logits, sampling, generators(1), torch.tensor([[True, False, False]]))
    assert log_probability == pytest.approx(math.log([0.5, 0.3, 0.2][token]), abs=1e-5)


def test_a_penalty_changes_what_greedy_takes() -> None:
    logits, there = torch.tensor([[1.0, 0.9]]), torch.tensor([[True, False]])
    penalised = SamplingConfig(greedy=True, repetition_penalty=1.2)
    assert choose(logits, penalised, generators(1), there)[0] == [1]
    assert choose(logits, penalised, generators(1))[0] == choose(logits, GREEDY, generators(1), there)[0] == [0]


@pytest.mark.parametrize("sampling", [GREEDY, SamplingConfig(), SamplingConfig(top_p=0.9, eta_cutoff=0.1)])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_predictions_that_are_not_numbers_are_said_also_of_one_row_among_others(
    sampling: SamplingConfig, bad: float
) -> None:
    for row in ([0.0, bad, 1.0], [-math.inf] * 3):
        with pytest.raises(UserError, match="diverged"):
            choose(torch.tensor([[0.0, 1.0, 2.0], row]), sampling, generators(2))


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.5},
        {"top_k": 3},
        {"top_p": 0.9},
        {"min_p": 0.1},
        {"typical_p": 0.9},
        {"eta_cutoff": 0.01},
    ],
)
def test_greedy_excludes_the_settings_of_drawing(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="greedy takes the likeliest token"):
        SamplingConfig(greedy=True, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.0},
        {"temperature": -1.0},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": 0.0},
        {"typical_p": 2.0},
        {"eta_cutoff": 1.0},
        {"repetition_penalty": 0.0},
        {"seed": -1},
        {"temprature": 1.0},
    ],
)
def test_settings_out_of_range_or_unknown_are_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        SamplingConfig(**settings)
