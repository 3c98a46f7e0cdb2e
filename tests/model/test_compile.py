"""Compiled blocks compute what eager ones do, and a compiler that fails is done without, aloud."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from daybreak.data.batches import Rows
from daybreak.model.gpt import GPT, ModelConfig, build
from daybreak.training.compiling import compile_blocks

CPU = torch.device("cpu")
VOCABULARY, LENGTH = 37, 16

models: dict[str, dict[str, Any]] = {
    "default": {},
    "alibi, dropout and windows": {
        "position": {"kind": "alibi"},
        "dropout": 0.2,
        "attention": {"windows": (5, 0), "kv_heads": 1},
    },
    "rotary, rmsnorm, glu and parallel": {
        "position": {"kind": "rotary"},
        "residual": "parallel",
        "norm": {"kind": "rmsnorm"},
        "mlp": {"kind": "glu", "activation": "silu", "hidden": 24},
        "head": {"soft_cap": 5.0},
    },
}


@pytest.fixture(autouse=True)
def _dynamo_as_it_was() -> Iterator[None]:
    config = torch._dynamo.config
    before = config.fail_on_recompile_limit_hit, config.recompile_limit
    torch._dynamo.reset()
    yield
    config.fail_on_recompile_limit_hit, config.recompile_limit = before
    torch._dynamo.reset()


def make_model(**settings: Any) -> GPT:
    sizes: dict[str, Any] = {"layers": 2, "heads": 2, "dim": 16, "context": LENGTH, "vocab_size": VOCABULARY}
    return build(ModelConfig(**(sizes | {"initialisation": {"std": 0.2}} | settings)), 0, CPU)


def some_rows(seed: int = 0) -> Rows:
    return rows_of(LENGTH, seed)


def rows_of(length: int, seed: int = 0) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(VOCABULARY, (3, length + 1), generator=generator)
    noise = torch.randint(2**31, (3,), generator=generator)
    return Rows(tokens[:, :-1], tokens[:, 1:], noise, 3 * length, last=True)


def loss_and_gradients(model: GPT, rows: Rows) -> list[Tensor]:
    model.zero_grad(set_to_none=True)
    loss = model(rows.inputs, rows.targets, rows.dropout_seeds)
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None for gradient in gradients)
    return [loss.detach(), *(gradient.clone() for gradient in gradients if gradient is not None)]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(models))
def test_compiled_blocks_have_the_loss_and_gradients_of_eager_ones(name: str) -> None:
    compiled, eager = make_model(**models[name]), make_model(**models[name])
    assert compile_blocks(compiled, [some_rows()], CPU, "fp32")
    assert all("forward" in vars(block) for block in compiled.blocks)
    assert all(parameter.grad is None for parameter in compiled.parameters())
    for seed in (0, 1):
        rows = some_rows(seed)
        for got, expected in zip(loss_and_gradients(compiled, rows), loss_and_gradients(eager, rows), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            measured, expected = (model(rows.inputs, rows.targets).item() for model in (compiled, eager))
        assert measured == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_a_compiled_model_goes_on_with_the_shape_it_was_compiled_for() -> None:
    """Neither training nor evaluation compiles again, whatever the tokens and the noise."""
    model = make_model(**models["alibi, dropout and windows"])
    assert compile_blocks(model, [some_rows()], CPU, "fp32")
    frames = torch._dynamo.utils.counters["frames"]["total"]
    assert frames > 0
    for seed in (2, 3):
        rows = some_rows(seed)
        loss_and_gradients(model, rows)
        with torch.no_grad():
            model(rows.inputs, rows.targets)
    assert torch._dynamo.utils.counters["frames"]["total"] == frames


@pytest.mark.slow
def test_bf16_compiles_too() -> None:
    model, rows = make_model(), some_rows()
    assert compile_blocks(model, [rows], CPU, "bf16")
    with torch.autocast("cpu", torch.bfloat16):
        compiled = model(rows.inputs, rows.targets)
    eager = make_model()(rows.inputs, rows.targets)
    assert compiled.item() == pytest.approx(eager.item(), rel=0.02)


def compiler_that_fails_from_call(number: int) -> Callable[..., Any]:
    """In place of torch.compile: what it makes works up to the call of this number, of all blocks together."""
    calls = 0

    def compile_(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls >= number:
                raise RuntimeError("no C++ compiler found")
            return function(*args, **kwargs)

        return call

    return compile_


@pytest.mark.parametrize("failing_call", [1, 2, 3, 4])
def test_a_compiler_that_fails_is_done_without_and_that_is_said(
    failing_call: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two layers: the first two calls train, and by the third, in evaluation, there are gradients to clear."""
    monkeypatch.setattr(torch, "compile", compiler_that_fails_from_call(failing_call))
    model, rows = make_model(), some_rows()
    assert not compile_blocks(model, [rows], CPU, "fp32")
    assert "compilation failed" in capsys.readouterr().err
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any("forward" in vars(block) for block in model.blocks)
    for got, expected in zip(loss_and_gradients(model, rows), loss_and_gradients(make_model(), rows), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.slow
def test_a_real_compiler_that_fails_is_done_without(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no C++ compiler found")

    monkeypatch.setattr(torch._inductor.compile_fx, "compile_fx", fail)
    model, rows = make_model(), some_rows()
    assert not compile_blocks(model, [rows], CPU, "fp32")
    said = capsys.readouterr().err
    assert "compilation failed" in said
    assert "no C++ compiler found" in said
    for got, expected in zip(loss_and_gradients(model, rows), loss_and_gradients(make_model(), rows), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.slow
def test_a_curriculum_compiles_each_of_its_shapes_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """More shapes than torch would allow by itself; none is compiled again."""
    lengths = (6, 10, LENGTH)
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 2)
    model, eager = make_model(layers=1), make_model(layers=1)
    assert compile_blocks(model, [rows_of(length) for length in lengths], CPU, "fp32")
    frames = torch._dynamo.utils.counters["frames"]["total"]
    for length in lengths:
        rows = rows_of(length, seed=2)
        for got, expected in zip(loss_and_gradients(model, rows), loss_and_gradients(eager, rows), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        model(rows.inputs, rows.targets)
    assert torch._dynamo.utils.counters["frames"]["total"] == frames
