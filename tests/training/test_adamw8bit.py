"""8-bit AdamW: against torchao's own optimizer, against fp32 AdamW in a real run, and its memory."""

import sys
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from daybreak.checkpoint import Tensors
from daybreak.data.batches import Batches
from daybreak.data.order import Order
from daybreak.data.shards import Corpus
from daybreak.data.windows import StreamWindows
from daybreak.errors import UserError
from daybreak.model.gpt import ModelConfig, build
from daybreak.training import adamw8bit
from daybreak.training.adamw8bit import AdamW8bit
from daybreak.training.optimizer import (
    AdamW8bitConfig,
    AdamWConfig,
    Optimizer,
    build_optimizers,
    set_learning_rates,
    unscale_and_clip,
)

LR, BETAS, EPS, DECAY = 1e-2, (0.9, 0.95), 1e-8, 0.1
CONFIG = AdamW8bitConfig(kind="adamw8bit", lr=LR)
STEPS = 40


def parameters(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def eight_bit(params: list[nn.Parameter]) -> AdamW8bit:
    return AdamW8bit(params, lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY)


def gradients(params: list[nn.Parameter], steps: int) -> Iterator[None]:
    """Put the gradients of each step in place, of sizes that differ from row to row."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in params:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.grad = noise * torch.logspace(-6, 0, len(parameter)).reshape(-1, *[1] * (parameter.ndim - 1))
        yield


def test_it_steps_as_torchaos_own_optimizer() -> None:
    from torchao.optim import AdamW8bit as Reference

    shapes = [(64, 128), (4096,), (48,), (100, 41)]  # two kept in eight bits, one too small, one of no whole blocks
    ours, theirs = parameters(*shapes), parameters(*shapes)
    optimizer, reference = eight_bit(ours), Reference(theirs, lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY)
    with torch.compiler.set_stance("force_eager"):
        for _ in zip(gradients(ours, 5), gradients(theirs, 5), strict=True):
            optimizer.step()
            reference.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3 * LR)
        own, their = optimizer.state[one], reference.state[other]
        for name in ("exp_avg", "exp_avg_sq"):
            if name in own:
                torch.testing.assert_close(own[name], their[name])
            else:
                torch.testing.assert_close(own[f"{name}.scale"], their[name].scale)
                expected = their[name].codes.clamp(min=1) if name == "exp_avg_sq" else their[name].codes
                assert (own[f"{name}.codes"] != expected).float().mean() < 1e-3
    assert [any(name.endswith("codes") for name in optimizer.state[p]) for p in ours] == [True, True, False, False]


def test_pieces_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = parameters((64, 130)), parameters((64, 130))
    optimizer, other = eight_bit(whole), eight_bit(cut)
    for _ in zip(gradients(whole, 3), gradients(cut, 3), strict=True):
        optimizer.step()
        with monkeypatch.context() as patch:
            patch.setattr(adamw8bit, "_PIECE", 768)
            other.step()
    assert torch.equal(whole[0], cut[0])


def test_an_element_whose_gradient_ends_moves_no_further_than_in_fp32() -> None:
    """Its second moment is far below the largest of its block; rounded to zero, it would leave eps to divide by."""
    (ours,), (exact,) = parameters((64, 64)), parameters((64, 64))
    optimizer = AdamW8bit([ours], lr=LR, betas=BETAS, eps=EPS, weight_decay=0.0)
    reference = torch.optim.AdamW([exact], lr=LR, betas=BETAS, eps=EPS, weight_decay=0.0)
    small = torch.arange(64) % 2 == 1
    for step in range(3):
        for parameter in (ours, exact):
            parameter.grad = torch.ones(64, 64)
            parameter.grad[:, small] = 1e-4 if step == 0 else 0.0
        optimizer.step()
        reference.step()
    (start,) = parameters((64, 64))
    assert ((ours - start)[:, small].abs() <= 1.1 * (exact - start)[:, small].abs()).all()
    torch.testing.assert_close(ours[:, ~small], exact[:, ~small], rtol=0, atol=0.02 * LR)


def losses(corpus: Corpus, config: Optimizer) -> tuple[list[float], int]:
    """The training losses of a small model, and the bytes of its moments a parameter."""
    cpu = torch.device("cpu")
    model = build(ModelConfig(layers=2, heads=2, dim=64, context=32, vocab_size=260), 0, cpu)
    optimizers = build_optimizers(config, model)
    windows = StreamWindows(corpus.stream("train"), 32)
    batches = Batches(
        windows, Order(len(windows), 0), length=32, windows_per_step=16, micro_batch=16, seed=0, device=cpu
    )
    measured = []
    for step in range(STEPS):
        set_learning_rates(optimizers, 1 - step / STEPS)
        (rows,) = batches.step(16 * step)
        loss = model(rows.inputs, rows.targets) / rows.counted
        loss.backward()
        unscale_and_clip(model, 1.0, scale=1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
        measured.append(loss.item())
    batches.close()
    moments = sum(tensor.nbytes for tensor in Tensors.of(model, optimizers).moments.values())
    return measured, moments / sum(parameter.numel() for parameter in model.parameters())


def test_a_run_loses_nothing_against_fp32_and_holds_a_quarter_of_its_moments(corpus: Corpus) -> None:
    exact, exact_bytes = losses(corpus, AdamWConfig(lr=LR))
    rounded, rounded_bytes = losses(corpus, CONFIG)
    assert exact[-1] < exact[0] - 2
    # Over five seeds the ends are 0.005 apart, and eight bits move them by 0.0001 to 0.004.
    assert sum(rounded[-5:]) / 5 == pytest.approx(sum(exact[-5:]) / 5, abs=0.01)
    assert exact_bytes == pytest.approx(8, rel=0.01)
    assert 2 < rounded_bytes < 2.25


def test_without_torchao_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.optim.quant_utils", None)
    with pytest.raises(UserError, match=r"pip install 'daybreak\[lowbit\]'"):
        build_optimizers(CONFIG, nn.Linear(2, 2))
