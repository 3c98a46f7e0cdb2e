"""The reference of settings has every setting, with what it means and what it is unless given."""

import re

import pytest

from daybreak.model.mlp import GatedMLPConfig
from daybreak.recipe import Recipe, recipe_names
from daybreak.training.optimizer import MuonConfig
from settings import configurations, settings_of, settings_tables, type_of


def listed() -> list[tuple[str, str, str]]:
    """Key, default and meaning of each line of the tables."""
    return re.findall(r"^\| `([\w.]+)`<br>.*? \| (.*?) \| (.*?) \|$", settings_tables(), flags=re.MULTILINE)


def test_every_setting_of_every_recipe_is_listed() -> None:
    keys = {key for key, _, _ in listed()}
    for name in recipe_names():
        held = {key for key in Recipe.load(name).settings if not key.endswith(".kind")}
        tables = {key for key, _, _ in configurations()}
        held = {re.sub(r"\.\d+(?=\.)", "", key) for key in held}  # corpora of a mixture
        assert held - tables <= keys, name  # a table that is not given is none


def test_every_setting_says_what_it_means() -> None:
    missing = [key for key, _, meaning in listed() if len(meaning) < 10]
    assert not missing, f"give these a line under `Attributes:` in their configuration: {missing}"


def test_nothing_is_explained_that_is_no_setting() -> None:
    from settings import meanings_of

    for key, model, _ in configurations():
        assert set(meanings_of(model)) <= set(model.model_fields), key


@pytest.mark.parametrize(
    ("key", "default"),
    [
        ("optimizer.betas", "`[0.9, 0.95]`"),
        ("checkpoint.every", "`10%`"),
        ("checkpoint.keep_every", "`never`"),
        ("guard.most_skipped", "`20`"),
        ("model.vocab_size", "required"),
        ("execution.micro_batch", "`auto`"),
    ],
)
def test_defaults_are_those_of_the_configurations(key: str, default: str) -> None:
    assert default in {shown for name, shown, _ in listed() if name == key}


def test_types_are_said_in_words() -> None:
    assert type_of(GatedMLPConfig.model_fields["hidden"]) == "whole number, &gt; 0"
    assert type_of(MuonConfig.model_fields["momentum_warmup"]) == "duration"
    assert type_of(GatedMLPConfig.model_fields["activation"]).startswith("`gelu`, `gelu_tanh`")
    assert {each.type for each in settings_of("tracking", Recipe.model_fields["tracking"].annotation)} >= {  # type: ignore[arg-type]
        "interval, or `never`"
    }
