"""Which parameters a part's name stands for, and that those keep neither gradient nor moments."""

import pytest
import torch

from daybreak.errors import UserError
from daybreak.model.gpt import ModelConfig, build
from daybreak.recipe import Recipe
from daybreak.training.freezing import count_trained, freeze, frozen_names
from daybreak.training.optimizer import AdamW8bitConfig, AdamWConfig, MuonConfig, Optimizer, build_optimizers

MODEL = ModelConfig(layers=12, heads=2, dim=16, context=8, vocab_size=40, bias=False, head={"tied": False})


@pytest.mark.parametrize(
    ("part", "count", "example"),
    [
        ("embedding", 1, "embedding.weight"),
        ("head", 1, "head.weight"),
        ("blocks.0-9", 60, "blocks.9.mlp.up.weight"),
        ("blocks.1", 6, "blocks.1.mlp.up.weight"),
        ("blocks.*.attention", 24, "blocks.11.attention.output.weight"),
        ("blocks.10-11.mlp", 4, "blocks.10.mlp.up.weight"),
    ],
)
def test_a_part_stands_for_all_below_it(part: str, count: int, example: str) -> None:
    names = frozen_names(MODEL, (part,))
    own = {name for name, _ in build(MODEL, 0, torch.device("cpu")).named_parameters()}
    assert names <= own
    assert len(names) == count
    assert example in names


def test_what_is_not_there_is_said_with_what_is() -> None:
    with pytest.raises(
        ValueError, match=r"blocks.12 is no part of this model; it has embedding.*blocks.0-11.attention"
    ):
        frozen_names(MODEL, ("blocks.12",))
    with pytest.raises(ValueError, match=r"blocks.0-12 is no part of this model"):
        frozen_names(MODEL, ("blocks.0-12",))
    with pytest.raises(UserError, match="freeze: embeding is no part"):
        Recipe.load("gpt2-tiny", "freeze=embeding")
    with pytest.raises(UserError, match="leaves nothing to train"):
        Recipe.load("gpt2-tiny", "freeze=embedding,position,blocks,final_norm")


def test_settings_take_text_or_a_list() -> None:
    assert Recipe.load("gpt2-tiny", "freeze=embedding,blocks.0-1").freeze == ("embedding", "blocks.0-1")
    recipe = Recipe.load("gpt2-tiny", "freeze=['embedding']")
    assert recipe.freeze == ("embedding",)
    assert recipe.fingerprint != Recipe.load("gpt2-tiny").fingerprint


@pytest.mark.parametrize("parts", [("embedding",), ("head",), ("embedding", "position", "blocks.0-10"), ("blocks",)])
@pytest.mark.parametrize(
    "config",
    [AdamWConfig(lr=1e-2), MuonConfig(kind="muon"), AdamW8bitConfig(kind="adamw8bit", lr=1e-2)],
    ids=lambda c: c.kind,
)
@pytest.mark.parametrize("tied", [False, True])
def test_frozen_parameters_take_no_memory_and_keep_their_bits(
    parts: tuple[str, ...], config: Optimizer, tied: bool
) -> None:
    shape = MODEL.model_copy(update={"head": MODEL.head.model_copy(update={"tied": tied})})
    if tied and "head" in parts:
        pytest.skip("a tied head is the embedding")
    model = build(shape, 0, torch.device("cpu"))
    names = frozen_names(shape, parts)
    freeze(model, names)
    optimizers = build_optimizers(config, model)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    tokens = torch.arange(16).reshape(2, 8)
    for _ in range(2):
        model(tokens, (tokens + 1) % 40, torch.arange(2)).backward()
        assert {name for name, parameter in model.named_parameters() if parameter.grad is None} == names
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (name in names), name
    kept = {parameter for optimizer in optimizers for parameter in optimizer.state}
    assert kept == {parameter for name, parameter in model.named_parameters() if name not in names}
    assert count_trained(shape, parts) == sum(parameter.numel() for parameter in kept)


@pytest.mark.parametrize("loss_rows", [0, 4])
@pytest.mark.parametrize("extra", [{}, {"over_logits": True}])
def test_gradients_of_the_rest_are_those_without_freezing(loss_rows: int, extra: dict[str, bool]) -> None:
    """Also where the loss makes its gradients by hand, in chunks."""
    from daybreak.model.kernels import Kernels

    shape = ModelConfig(layers=2, heads=2, dim=16, context=8, vocab_size=40, extra_norms=extra)
    tokens = torch.arange(16).reshape(2, 8)
    grads = []
    for parts in ((), ("embedding", "blocks.0")):
        model = build(shape, 0, torch.device("cpu"), Kernels(loss_rows=loss_rows))
        freeze(model, frozen_names(shape, parts))
        model(tokens, (tokens + 1) % 40).backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    whole, part = grads
    assert 0 < len(part) < len(whole)
    for name, grad in part.items():
        torch.testing.assert_close(grad, whole[name])
