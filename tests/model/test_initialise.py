"""Initial values depend on the seed and the parameter's name, and on nothing else."""

from typing import Any

import pytest
import torch
from torch import Tensor

from daybreak.model.gpt import GPT, ModelConfig, build
from daybreak.model.initialise import InitialisationConfig, normal_

BASE: dict[str, Any] = {"layers": 2, "heads": 2, "dim": 16, "context": 8, "vocab_size": 19}


def make_model(seed: int = 0, **settings: Any) -> GPT:
    return build(ModelConfig(**(BASE | settings)), seed, torch.device("cpu"))


def values(seed: int = 0, **settings: Any) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in make_model(seed, **settings).named_parameters()}


@pytest.mark.parametrize(
    ("changes", "added", "removed"),
    [
        ({"extra_norms": {"after_embedding": True}}, {"embedding_norm.weight", "embedding_norm.bias"}, set()),
        ({"extra_norms": {"over_logits": True}}, {"head.norm.weight", "head.norm.bias"}, set()),
        ({"attention": {"qk_norm": True}}, set(), set()),
        ({"attention": {"windows": (4, 0)}}, set(), set()),
        ({"head": {"tied": False}}, {"head.weight"}, set()),
        ({"dropout": 0.5}, set(), set()),
        ({"position": {"kind": "rotary"}}, set(), {"position.weight"}),
        ({"position": {"kind": "sinusoidal", "learned_scale": True}}, {"position.scale"}, {"position.weight"}),
        ({"mlp": {"activation": "relu2"}}, set(), set()),
    ],
)
def test_a_part_more_or_less_leaves_every_other_initial_value(
    changes: dict[str, Any], added: set[str], removed: set[str]
) -> None:
    base, changed = values(), values(**changes)
    assert set(changed) - set(base) == added
    assert set(base) - set(changed) == removed
    for name in set(base) & set(changed):
        assert torch.equal(base[name], changed[name]), name


def test_without_bias_or_with_a_parallel_residual_the_weights_are_the_same() -> None:
    base = values()
    for changed in (values(bias=False), values(residual="parallel")):
        weights = [name for name in changed if name in base]
        assert any(name.endswith("attention.qkv.weight") for name in weights)
        for name in weights:
            assert torch.equal(base[name], changed[name]), name


def test_a_layer_more_leaves_the_others_where_outputs_begin_at_zero() -> None:
    initialisation = {"output": "zero"}
    two, three = values(initialisation=initialisation), values(layers=3, initialisation=initialisation)
    for name, value in two.items():
        assert torch.equal(value, three[name]), name
    assert not torch.equal(three["blocks.2.mlp.up.weight"], three["blocks.1.mlp.up.weight"])


def test_every_matrix_has_values_of_its_own() -> None:
    matrices = [value.flatten()[:100] for value in values(head={"tied": False}).values() if value.ndim == 2]
    for i, first in enumerate(matrices):
        for second in matrices[i + 1 :]:
            assert not torch.isclose(first, second).all()


def test_standard_deviations_are_gpt2s() -> None:
    layers, std = 3, 0.02
    for name, value in values(layers=layers, dim=64, vocab_size=200, head={"tied": False}).items():
        if name.endswith("bias"):
            assert (value == 0).all(), name
        elif value.ndim == 1:
            assert (value == 1).all(), name
        else:
            ends_a_branch = name.endswith(("attention.output.weight", "mlp.down.weight"))
            expected = std / (2 * layers) ** 0.5 if ends_a_branch else std
            error = expected / (2 * value.numel()) ** 0.5
            assert abs(value.std().item() - expected) < 5 * error, name
            assert abs(value.mean().item()) < 5 * expected / value.numel() ** 0.5, name


def test_the_standard_deviation_is_the_one_asked_for() -> None:
    assert InitialisationConfig(std=0.1).output_std(8) == pytest.approx(0.1 / 4)
    ratio = values(initialisation={"std": 0.1})["embedding.weight"] / values()["embedding.weight"]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 5.0))


@pytest.mark.parametrize("residual", ["sequential", "parallel"])
def test_with_outputs_at_zero_every_block_begins_as_the_identity(residual: str) -> None:
    model = make_model(residual=residual, initialisation={"output": "zero"})
    x = torch.randn(2, 8, 16)
    for block in model.blocks:
        assert torch.equal(block(x), x)
    scaled = make_model(residual=residual)
    assert not torch.equal(scaled.blocks[0](x), x)


def test_a_seed_repeats_and_seeds_differ() -> None:
    first, again, other = values(seed=1), values(seed=1), values(seed=2)
    for name, value in first.items():
        assert torch.equal(value, again[name]), name
        if value.ndim == 2:
            assert (value != other[name]).float().mean() > 0.99, name


def test_no_parameter_is_left_without_an_initial_value() -> None:
    """Filled with NaN beforehand, as memory that was never written might be."""
    for settings in (
        {},
        {"residual": "parallel", "head": {"tied": False}},
        {"extra_norms": {"after_embedding": True, "shared": True, "over_logits": True}},
        {"position": {"kind": "sinusoidal", "learned_scale": True}, "mlp": {"kind": "glu", "hidden": 12}},
    ):
        model = GPT(ModelConfig(**(BASE | settings)))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(torch.nan)
        model.initialise(0)
        for name, parameter in model.named_parameters():
            assert parameter.isfinite().all(), name
            assert torch.equal(parameter, values(**settings)[name]), name


def test_the_global_random_state_is_neither_read_nor_changed() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = values()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    for name, value in values().items():
        assert torch.equal(value, first[name]), name


def test_values_do_not_depend_on_the_parameters_type() -> None:
    single, half = torch.empty(4, 5), torch.empty(4, 5, dtype=torch.bfloat16)
    for parameter in (single, half):
        normal_(parameter, 0.02, seed=3, name="a.weight")
    assert torch.equal(single.bfloat16(), half)
