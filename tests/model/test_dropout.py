"""Dropout is a function of a row's seed, the site and the element, and behaves like chance."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from daybreak.model import attention, gpt, mlp
from daybreak.model.dropout import dropout, mix, next_layer
from daybreak.model.gpt import GPT, ModelConfig, build

ELEMENTS = 100_000


def dropped(noise: int, rate: float = 0.5, site: int = 0, elements: int = ELEMENTS) -> Tensor:
    """Which elements of a row are dropped, as 0 and 1."""
    return (dropout(torch.ones(1, elements), rate, torch.tensor([noise]), site)[0] == 0).float()


def correlation(first: Tensor, second: Tensor) -> float:
    return float(torch.corrcoef(torch.stack((first, second)))[0, 1])


LIMIT = 5 / math.sqrt(ELEMENTS)  # five standard deviations of the correlation of independent masks


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("noise", [0, 1, 2**31 - 1])
@pytest.mark.parametrize("site", [0, 1, 2])
def test_the_share_asked_for_is_dropped(rate: float, noise: int, site: int) -> None:
    error = math.sqrt(rate * (1 - rate) / ELEMENTS)
    assert abs(dropped(noise, rate, site).mean().item() - rate) < 5 * error


def test_what_is_kept_is_scaled_so_that_the_expectation_stays() -> None:
    x = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0)) + 10
    out = dropout(x, 0.2, torch.tensor([1, 2, 3]), site=0)
    kept = out != 0
    assert 0.5 < kept.float().mean() < 1
    torch.testing.assert_close(out[kept], (x / 0.8)[kept])


def test_gradients_pass_where_values_passed() -> None:
    x = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)).requires_grad_()
    out = dropout(x, 0.3, torch.tensor([1, 2, 3, 4]), site=1)
    out.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, (out != 0) / 0.7)


def test_no_noise_or_no_rate_turns_it_off() -> None:
    x = torch.randn(2, 5)
    assert torch.equal(dropout(x, 0.9, None, site=0), x)
    assert torch.equal(dropout(x, 0.0, torch.tensor([1, 2]), site=0), x)
    assert next_layer(None) is None


def test_a_mask_does_not_depend_on_the_values_the_type_or_the_shape_of_a_row() -> None:
    noise = torch.tensor([7, 8])
    masks = [
        (dropout(x, 0.5, noise, site=2) == 0).flatten(1)
        for x in (torch.ones(2, 60), 3 * torch.ones(2, 3, 20), -torch.ones(2, 3, 4, 5, dtype=torch.bfloat16))
    ]
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])


def test_a_row_drops_the_same_in_whatever_batch_it_stands() -> None:
    x = torch.randn(6, 3, 40, generator=torch.Generator().manual_seed(0))
    noise = torch.randint(2**31, (6,), generator=torch.Generator().manual_seed(1))
    whole = dropout(x, 0.4, noise, site=1)
    for rows in (slice(0, 1), slice(1, 3), slice(3, 6)):
        assert torch.equal(dropout(x[rows], 0.4, noise[rows], site=1), whole[rows])
    backwards = dropout(x.flip(0), 0.4, noise.flip(0), site=1)
    assert torch.equal(backwards.flip(0), whole)


def test_rows_are_uncorrelated_also_with_neighbouring_noise() -> None:
    masks = [dropped(noise) for noise in (0, 1, 2, 3, 1000, 2**30, 2**31 - 1)]
    for first, second in itertools.combinations(masks, 2):
        assert abs(correlation(first, second)) < LIMIT


def test_sites_are_uncorrelated() -> None:
    masks = [dropped(5, site=site) for site in range(3)]
    for first, second in itertools.combinations(masks, 2):
        assert abs(correlation(first, second)) < LIMIT


def test_layers_are_uncorrelated() -> None:
    noise, masks = torch.tensor([9]), []
    for _ in range(6):
        masks.append(dropped(int(noise)))
        following = next_layer(noise)
        assert following is not None
        assert 0 <= int(following) < 2**31
        noise = following
    for first, second in itertools.combinations(masks, 2):
        assert abs(correlation(first, second)) < LIMIT


@pytest.mark.parametrize("lag", [1, 2, 3, 16, 64, 256, 1024])
def test_elements_are_uncorrelated(lag: int) -> None:
    mask = dropped(3)
    assert abs(correlation(mask[:-lag], mask[lag:])) < LIMIT * 1.1


def test_mix_loses_nothing() -> None:
    """A permutation of the 32-bit integers, so no two elements share their bits by construction."""
    some = torch.cat((torch.arange(200_000), 2**32 - 1 - torch.arange(200_000)))
    mixed = mix(some)
    assert len(mixed.unique()) == len(some)
    assert ((mixed >= 0) & (mixed < 2**32)).all()


def make_model(rate: float) -> tuple[GPT, Tensor, Tensor]:
    sizes: dict[str, Any] = {"layers": 2, "heads": 2, "dim": 16, "context": 8, "vocab_size": 19}
    model = build(ModelConfig(**sizes, dropout=rate, initialisation={"std": 0.3}), 0, torch.device("cpu"))
    tokens = torch.randint(19, (4, 9), generator=torch.Generator().manual_seed(0))
    return model, tokens[:, :-1], tokens[:, 1:]


def test_a_models_training_loss_is_the_sum_over_micro_batches() -> None:
    model, inputs, targets = make_model(0.3)
    noise = torch.tensor([1, 2, 3, 4])
    whole = model(inputs, targets, noise)
    parts = [model(inputs[rows], targets[rows], noise[rows]) for rows in (slice(0, 1), slice(1, 4))]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-5, atol=1e-4)
    assert abs(model(inputs, targets, noise + 10).item() - whole.item()) > 1e-3


def test_no_two_places_of_a_model_share_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Embedding, and in each layer attention weights, attention's output, and the MLP's."""
    used: list[tuple[int, int]] = []

    def recorded(x: Tensor, rate: float, seeds_B: Tensor | None, site: int) -> Tensor:
        assert seeds_B is not None
        used.extend((int(noise), site) for noise in seeds_B)
        return dropout(x, rate, seeds_B, site)

    for module in (attention, gpt, mlp):
        monkeypatch.setattr(module, "dropout", recorded)
    model, inputs, targets = make_model(0.3)
    model(inputs, targets, torch.tensor([1, 2, 3, 4]))
    assert len(used) == 4 * (1 + 3 * 2)
    assert len(set(used)) == len(used)


def test_a_model_without_noise_is_the_model_without_dropout() -> None:
    model, inputs, targets = make_model(0.3)
    plain, _, _ = make_model(0.0)
    assert model(inputs, targets).item() == plain(inputs, targets).item()
    assert abs(model(inputs, targets, torch.tensor([1, 2, 3, 4])).item() - plain(inputs, targets).item()) > 1e-3


def test_the_global_random_state_is_neither_read_nor_changed() -> None:
    model, inputs, targets = make_model(0.3)
    noise = torch.tensor([1, 2, 3, 4])
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = model(inputs, targets, noise).item()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert model(inputs, targets, noise).item() == first
