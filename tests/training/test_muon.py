"""Muon against torch's own, the singular values it promises, and decay by its formula."""

import pytest
import torch
from torch import Tensor, nn

from daybreak.training.muon import Muon, orthogonalised

SHAPES = [(8, 8), (8, 8), (24, 8), (8, 24), (24, 8)]


def some_parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def give_gradients(parameters: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_matrices_at_once_step_as_torchs_do_one_by_one(weight_decay: float) -> None:
    ours, theirs = some_parameters(), some_parameters()
    settings = {"lr": 0.05, "momentum": 0.9, "weight_decay": weight_decay}
    mine, its = Muon(ours, **settings), torch.optim.Muon(theirs, **settings, nesterov=True, adjust_lr_fn="original")
    for step in range(5):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        mine.step()
        its.step()
    for one, other, begin in zip(ours, theirs, some_parameters(), strict=True):
        moved = (other - begin).norm()
        assert (one - other).norm() < 0.01 * moved  # both work in bf16


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 40), (2, 40, 8)])
def test_singular_values_come_near_one(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalised(matrices).float())
    assert values.min() > 0.3  # the quintic lifts what is not tiny, and swings about 1 (Jordan et al. 2024)
    assert values.max() < 1.3


def test_a_batch_is_each_matrix_by_itself() -> None:
    matrices = torch.randn(4, 12, 20, generator=torch.Generator().manual_seed(1))
    alone = torch.cat([orthogonalised(matrix[None]) for matrix in matrices])
    torch.testing.assert_close(orthogonalised(matrices), alone, rtol=0.02, atol=0.005)


def decayed(cautious: bool, weight_decay: float) -> tuple[Tensor, Tensor, Tensor]:
    """A weight before a step, its update, and after it."""
    (parameter,) = (each for each in some_parameters()[:1])
    before = parameter.detach().clone()
    give_gradients([parameter], 3)
    Muon([parameter], lr=0.1, momentum=0.0, weight_decay=0.0).step()
    update = (before - parameter.detach()) / 0.1
    again = nn.Parameter(before.clone())
    again.grad = parameter.grad
    Muon([again], lr=0.1, momentum=0.0, weight_decay=weight_decay, cautious=cautious).step()
    return before, update, again.detach()


def test_decay_shrinks_all_weights_and_cautious_decay_those_that_shrink_anyway() -> None:
    before, update, after = decayed(cautious=False, weight_decay=0.5)
    torch.testing.assert_close(after, before * (1 - 0.05) - 0.1 * update)
    before, update, after = decayed(cautious=True, weight_decay=0.5)
    torch.testing.assert_close(after, torch.where(update * before > 0, before * (1 - 0.05), before) - 0.1 * update)
    assert 0 < (update * before > 0).float().mean() < 1


def test_a_matrix_without_a_gradient_stays() -> None:
    first, second = some_parameters()[:2]
    give_gradients([first], 0)
    before = second.detach().clone()
    Muon([first, second], lr=0.1, momentum=0.9, weight_decay=0.1).step()
    assert torch.equal(second, before)
