"""A study's file: what it makes, and what it refuses."""

from collections.abc import Callable
from pathlib import Path

import pytest

from daybreak.errors import UserError
from daybreak.study.design import Design, variants

Write = Callable[..., Path]


def test_each_change_alone_and_each_left_out(write: Write) -> None:
    design = Design.load(write(modes="{ add-one = true, leave-one-out = true }"))
    made = {variant.name: (variant.reference, variant.overrides) for variant in variants(design)}
    bias, wide = "model.bias=false", "model.dim=32"
    assert made == {
        "base": (None, ()),
        "no-bias": ("base", (bias,)),
        "wide": ("base", (wide,)),
        "all": ("base", (bias, wide)),
        "all-without-no-bias": ("all", (wide,)),
        "all-without-wide": ("all", (bias,)),
    }


def test_a_variants_recipe_is_the_base_with_settings_and_changes(write: Write) -> None:
    path = write()
    design = Design.load(path)
    recipes = {variant.name: variant.recipe(design, path.parent) for variant in variants(design)}
    assert {name: recipe.model.dim for name, recipe in recipes.items()} == {"base": 16, "no-bias": 16, "wide": 32}
    assert {name: recipe.model.bias for name, recipe in recipes.items()} == {
        "base": True,
        "no-bias": False,
        "wide": True,
    }
    assert str(recipes["base"].budget) == "640 tokens"


def test_a_base_may_lie_beside_the_study(write: Write) -> None:
    path = write(base='"mine.toml"', settings="")
    (path.parent / "mine.toml").write_text('extends = "gpt2-tiny"\nmodel = { layers = 3 }\n')
    design = Design.load(path)
    assert variants(design)[0].recipe(design, path.parent).model.layers == 3


def test_seeds_are_counted_from_one_or_named(write: Write) -> None:
    assert Design.load(write(seeds="3")).seeds == (1, 2, 3)
    assert Design.load(write(seeds="[11, 7]")).seeds == (11, 7)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ({"budget": '"100 steps"'}, "held equal in time, tokens or FLOPs"),
        ({"budget": '"2 epochs"'}, "held equal in time, tokens or FLOPs"),
        ({"seeds": "0"}, "at least one"),
        ({"seeds": "[1, 1]"}, "each once"),
        ({"seeds": "[-1]"}, "count from 0"),
        ({"changes": "{}"}, "changes"),
        ({"changes": "{ base = ['model.bias=false'] }"}, "may not be named 'base'"),
        ({"changes": "{ '../x' = ['model.bias=false'] }"}, "may not be named"),
        ({"changes": "{ longer = ['budget=2M tokens'] }"}, "longer: budget is what the study sets itself"),
        ({"changes": "{ other = ['seed=4'] }"}, "other: seed is what the study sets itself"),
        ({"changes": "{ easy = ['evaluation.tokens=1'] }"}, "easy: evaluation.tokens"),
        ({"changes": "{ text = ['data.corpus=elsewhere'] }"}, "text: data.corpus changes the text.*give validation"),
        ({"changes": "{ x = ['optimizer.lr=1'] }", "tune": "{ 'optimizer.lr' = [1e-3] }"}, "x: optimizer.lr is tuned"),
        ({"tune": "{ 'optimizer.lr' = [] }"}, "needs the values to try"),
        ({"tune": "{ 'evaluation.tokens' = [1] }"}, "tune: evaluation.tokens is what the loss is measured on"),
        ({"changes": "{ text = ['data={corpus=\"x\"}'] }"}, "text: data.corpus changes the text"),
        ({"changes": "{ x = ['optimizer={lr=1}'] }", "tune": "{ 'optimizer.lr' = [1e-3] }"}, "optimizer.lr is tuned"),
        ({"modes": "{ add-one = false }"}, "nothing to compare"),
        ({"modes": "{ add-two = true }"}, "modes.add-two"),
        ({"budgets": "3"}, "unknown key budgets; a study has base"),
    ],
)
def test_what_would_not_be_a_comparison_is_refused(write: Write, lines: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Design.load(write(**lines))


def test_changes_that_undo_one_another_cannot_all_be_made(write: Write) -> None:
    design = Design.load(
        write(changes="{ a = ['model.dim=32'], b = ['model.dim=64'] }", modes="{ leave-one-out = true }")
    )
    with pytest.raises(UserError, match=r"changes a and b both set model\.dim, to 32 and 64"):
        variants(design)


def test_tables_and_keys_of_the_same_setting_undo_one_another(write: Write) -> None:
    changes = "{ a = ['model={dim=32}'], b = ['model.dim=64'] }"
    with pytest.raises(UserError, match=r"changes a and b both set model\.dim"):
        variants(Design.load(write(changes=changes, modes="{ leave-one-out = true }")))


def test_a_file_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        Design.load(tmp_path / "no.toml")
    (tmp_path / "bad.toml").write_text("seeds = = 3")
    with pytest.raises(UserError, match="not valid TOML"):
        Design.load(tmp_path / "bad.toml")


@pytest.mark.parametrize("name", ["..", ".hidden", "-rf", "x" * 101])
def test_a_change_is_named_as_a_folder_can_be(name: str, write: Write) -> None:
    with pytest.raises(UserError, match="a change may not be named"):
        Design.load(write(changes=f"{{ '{name}' = ['model.bias=false'] }}"))


def test_two_variants_of_one_name_are_refused(write: Write) -> None:
    changes = "{ a = ['model.bias=false'], all-without-a = ['model.dim=32'] }"
    with pytest.raises(UserError, match="two variants would be named all-without-a"):
        variants(Design.load(write(changes=changes, modes="{ leave-one-out = true }")))


@pytest.mark.parametrize("key", ["evaluation.tokens", "data.corpus"])
def test_what_measures_is_not_tuned(key: str, write: Write) -> None:
    with pytest.raises(UserError, match="cannot be chosen by the loss"):
        Design.load(write(tune=f'{{ "{key}" = [1, 2] }}'))


def test_a_change_that_is_no_list_is_said_with_its_name(write: Write) -> None:
    with pytest.raises(UserError, match=r"changes\.a: give a list"):
        Design.load(write(changes="{ a = 'model.bias=false' }"))


def test_trials_that_would_end_by_themselves_are_refused(tmp_path: Path) -> None:
    design = Design.of(
        {"base": "gpt2-tiny", "budget": "30s", "seeds": 1, "changes": {"a": ["early_stop.patience=2"]}}, ""
    )
    with pytest.raises(UserError, match="early_stop ends trials before they have spent the same"):
        variants(design)[1].recipe(design, tmp_path)
