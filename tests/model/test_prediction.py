"""The training loss on a share of positions is the loss of a plain mask, in value and gradients."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from daybreak.model.gpt import GPT, ModelConfig, build
from daybreak.model.kernels import Kernels
from daybreak.model.prediction import PredictionConfig, hardest_positions, random_positions

T, VOCABULARY = 12, 29
SEEDS = torch.tensor([5, 2**31 - 1, 77, 0, 6])
SIZES: dict[str, Any] = {"layers": 2, "heads": 2, "dim": 16, "context": T, "vocab_size": VOCABULARY}


def make_model(loss_rows: int = 0, tied: bool = True, **prediction: Any) -> GPT:
    config = ModelConfig(**SIZES, head={"tied": tied}, initialisation={"std": 0.3})
    return build(config, 0, torch.device("cpu"), Kernels(loss_rows), PredictionConfig(**prediction))


def some_rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    tokens = torch.randint(VOCABULARY, (len(SEEDS), T + 1), generator=generator)
    return tokens[:, :-1], tokens[:, 1:]


def losses_of(model: GPT) -> Tensor:
    """Each position's loss, with gradient, from all logits."""
    tokens, targets = some_rows()
    return F.cross_entropy(model.logits(tokens).transpose(1, 2), targets, reduction="none")


def gradients(model: GPT, loss: Tensor) -> dict[str, Tensor]:
    names = dict(model.named_parameters())
    return dict(zip(names, torch.autograd.grad(loss, list(names.values())), strict=True))


def mask_of(choose: str, losses: Tensor, count: int) -> Tensor:
    mask = torch.zeros_like(losses)
    for row in range(len(losses)):
        if choose == "random":
            chosen = random_positions(SEEDS[row : row + 1], T, count)[0].tolist()
        else:
            chosen = sorted(range(T), key=lambda position: -losses[row, position].item())[:count]
        mask[row, chosen] = 1.0
    return mask


@pytest.mark.parametrize("choose", ["random", "hardest"])
@pytest.mark.parametrize("loss_rows", [0, 7, 1000])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("share", "count"), [(0.5, 6), (0.3, 4), (0.01, 1), (0.99, 12)])
def test_the_loss_is_that_of_a_plain_mask_in_value_and_gradients(
    choose: str, loss_rows: int, tied: bool, share: float, count: int
) -> None:
    model = make_model(loss_rows, tied, share=share, choose=choose)
    losses = losses_of(model)
    expected = (losses * mask_of(choose, losses, count)).sum()
    got = model(*some_rows(), SEEDS)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    expected_grads = gradients(model, expected)
    for name, gradient in gradients(model, got).items():
        torch.testing.assert_close(gradient, expected_grads[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("tied", [True, False])
def test_under_bf16_the_hardest_positions_pass_gradients_to_the_head_too(tied: bool) -> None:
    model = make_model(7, tied, share=0.5, choose="hardest")
    with torch.autocast("cpu", torch.bfloat16):
        got = gradients(model, model(*some_rows(), SEEDS))
        losses = losses_of(model)
        expected = gradients(model, (losses * mask_of("hardest", losses, 6)).sum())
    for name, gradient in got.items():
        assert (gradient - expected[name]).norm() <= 0.05 * expected[name].norm() + 1e-3, name


@pytest.mark.parametrize("choose", ["random", "hardest"])
def test_without_seeds_every_token_counts(choose: str) -> None:
    model, plain = make_model(share=0.5, choose=choose), make_model()
    assert torch.equal(model(*some_rows()), plain(*some_rows()))
    assert torch.equal(plain(*some_rows(), SEEDS), plain(*some_rows()))


@pytest.mark.parametrize("choose", ["random", "hardest"])
def test_what_is_chosen_in_a_row_does_not_depend_on_the_rows_beside_it(choose: str) -> None:
    model = make_model(share=0.5, choose=choose)
    tokens, targets = some_rows()
    with torch.no_grad():
        alone = [model(tokens[i : i + 1], targets[i : i + 1], SEEDS[i : i + 1]) for i in range(len(SEEDS))]
        torch.testing.assert_close(torch.stack(alone).sum(), model(tokens, targets, SEEDS))


def test_the_head_computes_the_chosen_positions_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen, loss = make_model(share=0.25), list[int](), F.cross_entropy

    def count(logits: Tensor, *arguments: Any, **settings: Any) -> Tensor:
        seen.append(len(logits))
        return loss(logits, *arguments, **settings)

    monkeypatch.setattr(F, "cross_entropy", count)
    model(*some_rows(), SEEDS)
    assert seen == [3 * len(SEEDS)]


def test_random_positions_are_distinct_in_order_and_alike_often() -> None:
    seeds, count = torch.arange(6000), 5
    chosen = random_positions(seeds, T, count)
    assert (chosen.diff() > 0).all()
    assert torch.equal(chosen, random_positions(seeds, T, count))
    share, often = count / T, chosen.flatten().bincount(minlength=T) / len(seeds)
    assert ((often - share).abs() < 5 * (share * (1 - share) / len(seeds)) ** 0.5).all()
    assert len({tuple(row) for row in chosen.tolist()}) > 700  # of 792 that there are


def test_the_hardest_are_those_of_the_highest_loss() -> None:
    losses = torch.tensor([[1.0, 3.0, 2.0, 0.0], [0.5, 0.1, 0.2, 9.0]])
    assert hardest_positions(losses, 2).tolist() == [[1, 2], [0, 3]]


@pytest.mark.parametrize("share", [0.0, -0.5, 1.1])
def test_a_share_is_above_nothing_and_at_most_all(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        PredictionConfig(share=share)
