"""The family of which the depth is the one dial."""

import itertools

import pytest

from daybreak.errors import UserError
from daybreak.family import batch_tokens, depth_of, is_like_a_member
from daybreak.model.gpt import count_multiplied
from daybreak.recipe import Recipe


def test_depth_two_is_daybreak_small_but_for_its_heads() -> None:
    small, member = Recipe.load("daybreak-small"), Recipe.load("daybreak-d2")
    keys = {line.split(":")[0] for line in member.differences(small)}
    assert keys == {"name", "description", "model.heads"}


@pytest.mark.parametrize("depth", [1, 2, 3, 6, 7, 11, 24, 48])
def test_every_depth_is_a_recipe(depth: int) -> None:
    recipe = Recipe.load(f"daybreak-d{depth}")
    model = recipe.model
    assert (model.layers, model.heads, model.dim) == (depth, depth, 96 * depth)
    assert recipe.optimizer.kind == "muon"
    assert recipe.optimizer.lr == pytest.approx(0.02 * (192 / model.dim) ** (1 / 3), rel=1e-3)
    assert recipe.optimizer.adam_lr == pytest.approx(3e-3 * (192 / model.dim) ** (5 / 6), abs=1e-6)
    assert recipe.batch.tokens % recipe.data.window == 0


def test_a_layer_more_is_more_work() -> None:
    counts = [count_multiplied(Recipe.load(f"daybreak-d{depth}").model) for depth in range(1, 9)]
    assert counts == sorted(counts)
    assert all(more < 4 * less for less, more in itertools.pairwise(counts))


def test_the_batch_grows_with_the_fourth_root() -> None:
    assert batch_tokens(1e12) == batch_tokens(4e13) == 4096
    assert batch_tokens(4e13 * 2**4) == 8192
    assert batch_tokens(4e13 * 2**40) == 4096 * 2**10


@pytest.mark.parametrize("name", ["daybreak-d0", "daybreak-d49", "daybreak-d", "daybreak-d02", "daybreak-dx", "d2"])
def test_no_other_name_is_a_member(name: str) -> None:
    assert depth_of(name) is None
    with pytest.raises(UserError, match="unknown recipe"):
        Recipe.load(name)


def test_a_member_may_be_extended_by_a_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "mine.toml"
    path.write_text('extends = "daybreak-d3"\nbudget = "1h"\n')
    assert Recipe.load(path).model.layers == 3


def test_what_is_like_a_member_differs_in_its_sizes_alone() -> None:
    base = Recipe.load("daybreak-small").model_dump(mode="json")

    def like(*overrides: str) -> bool:
        return is_like_a_member(Recipe.load("daybreak-d5", *overrides).model_dump(mode="json"), base)

    assert like()
    assert like("model.layers=7", "budget=9h", "model.vocab_size=50304")
    assert not like("model.mlp.activation=gelu")
    assert not like("optimizer.lr=0.1")
    assert not like("schedule.decay=10%")
