"""Parameter groups, clipping, and AdamW against the formula of its paper."""

import math

import pytest
import torch
from torch import nn

from daybreak.duration import Duration, Unit
from daybreak.model.gpt import GPT, ModelConfig, build
from daybreak.training.budget import Moment, Rates
from daybreak.training.growth import StepSize
from daybreak.training.optimizer import (
    AdamW8bitConfig,
    AdamWConfig,
    MuonConfig,
    Optimizer,
    build_optimizers,
    set_learning_rates,
    set_momentum,
    unscale_and_clip,
)


def tiny_model() -> GPT:
    config = ModelConfig(layers=1, heads=2, dim=16, context=16, vocab_size=257)
    return build(config, 0, torch.device("cpu"))


def with_gradients(model: nn.Module, scale: float) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)
    return model


def gradients(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize(
    "config",
    [AdamWConfig(lr=1e-3, weight_decay=0.3), AdamW8bitConfig(kind="adamw8bit", lr=1e-3, weight_decay=0.3)],
    ids=lambda config: config.kind,
)
def test_only_tensors_of_two_or_more_dimensions_decay(config: Optimizer) -> None:
    model = tiny_model()
    (optimizer,) = build_optimizers(config, model)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {id(p): 0.3 if p.ndim >= 2 else 0.0 for p in model.parameters()}
    assert set(decay.values()) == {0.3, 0.0}


def rates(optimizers: tuple[torch.optim.Optimizer, ...]) -> list[float]:
    return [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]


def test_the_share_of_its_peak_reaches_every_group() -> None:
    optimizers = build_optimizers(AdamWConfig(lr=1e-3), tiny_model())
    for share in (0.25, 1.0, 0.5):
        set_learning_rates(optimizers, share)
        assert rates(optimizers) == [share * 1e-3, share * 1e-3]


def test_each_optimizer_has_a_peak_of_its_own() -> None:
    config = MuonConfig(kind="muon", lr=0.02, adam_lr=3e-3, embedding_lr=0.1)
    optimizers = build_optimizers(config, tiny_model())  # matrices; tables; norms and biases
    for share in (0.25, 1.0, 0.5):
        set_learning_rates(optimizers, share)
        assert rates(optimizers) == [share * 0.02, share * 0.1, share * 3e-3]


def test_every_table_read_by_token_has_the_embeddings_rate() -> None:
    lookup = {"ngrams": (2,), "rows": 64, "values": "all"}
    config = ModelConfig(layers=1, heads=2, dim=16, context=16, vocab_size=257, lookup=lookup, head={"tied": False})
    model = build(config, 0, torch.device("cpu"))
    optimizers = build_optimizers(MuonConfig(kind="muon", embedding_lr=0.1), model)
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {
        names[p] for each in optimizers for group in each.param_groups if group["lr"] == 0.1 for p in group["params"]
    }
    assert found == {"embedding.weight", "position.weight", "ngrams.tables.0.weight", "values.tables.0.weight"}


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 0.85), (0.1, 0.90), (0.2, 0.95), (0.7, 0.95)])
def test_muons_momentum_rises_over_its_warmup(progress: float, expected: float) -> None:
    config = MuonConfig(kind="muon", momentum=0.95, momentum_warmup=Duration(20, Unit.PERCENT))
    optimizers = build_optimizers(config, tiny_model())
    size = StepSize(windows=1, tokens=1, length=1, flops=1.0)
    moment = Moment(progress, 0.01, size, Duration(100, Unit.STEPS), 100, True, Rates(size, 1, 1))
    set_momentum(optimizers, config, moment)
    assert optimizers[0].param_groups[0]["momentum"] == pytest.approx(expected)
    assert all("momentum" not in group for each in optimizers[1:] for group in each.param_groups)


@pytest.mark.parametrize(
    "config",
    [AdamWConfig(lr=1e-3), AdamW8bitConfig(kind="adamw8bit", lr=1e-3), MuonConfig(kind="muon")],
    ids=lambda config: config.kind,
)
def test_every_parameter_is_in_exactly_one_group(config: Optimizer) -> None:
    model = tiny_model()
    groups = [group for optimizer in build_optimizers(config, model) for group in optimizer.param_groups]
    inside = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(inside) == sorted(id(parameter) for parameter in model.parameters())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("divisor", [1.0, 65_536.0, 0.75])
def test_clipping_is_torchs_behind_the_division(scale: float, divisor: float) -> None:
    ours, theirs = with_gradients(tiny_model(), scale), with_gradients(tiny_model(), scale / divisor)
    expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
    norm = unscale_and_clip(ours, 1.0, scale=divisor)
    assert isinstance(norm, float)
    assert norm == pytest.approx(expected.item(), rel=1e-5)
    for one, other in zip(gradients(ours), gradients(theirs), strict=True):
        torch.testing.assert_close(one, other)


def test_a_largest_norm_of_zero_divides_and_does_not_clip() -> None:
    model, untouched = with_gradients(tiny_model(), 100.0), with_gradients(tiny_model(), 100.0)
    norm = unscale_and_clip(model, 0.0, scale=4.0)
    square = sum(float(grad.double().square().sum()) for grad in gradients(untouched))
    assert norm == pytest.approx(math.sqrt(square) / 4, rel=1e-5)
    for one, other in zip(gradients(model), gradients(untouched), strict=True):
        torch.testing.assert_close(one, other / 4)


def test_adamw_steps_as_its_paper_says() -> None:
    lr, beta1, beta2, eps, decay = 3e-2, 0.9, 0.95, 1e-8, 0.1
    model = tiny_model()
    (optimizer,) = build_optimizers(AdamWConfig(lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay), model)
    expected = [parameter.detach().double() for parameter in model.parameters()]
    first = [torch.zeros_like(value) for value in expected]
    second = [torch.zeros_like(value) for value in expected]
    for step in range(1, 4):
        with_gradients(model, float(step))
        for index, grad in enumerate(gradients(model)):
            # Algorithm 2 of Loshchilov and Hutter, with the decay multiplied by the learning rate as torch has it.
            first[index] = beta1 * first[index] + (1 - beta1) * grad.double()
            second[index] = beta2 * second[index] + (1 - beta2) * grad.double() ** 2
            update = (first[index] / (1 - beta1**step)) / ((second[index] / (1 - beta2**step)).sqrt() + eps)
            rate = decay if grad.ndim >= 2 else 0.0
            expected[index] = expected[index] - lr * update - lr * rate * expected[index]
        optimizer.step()
    for parameter, value in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach().double(), value, rtol=1e-5, atol=1e-6)
