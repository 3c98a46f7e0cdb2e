"""Recipes that leave this machine name nothing by its path."""

from pathlib import Path

from daybreak.origin import InitConfig
from daybreak.published import published
from daybreak.recipe import Recipe


def test_no_path_of_this_machine_is_named(tmp_path: Path) -> None:
    tasks = f"tasks={{every='90%', folder='{tmp_path}/mine', local=['piqa={tmp_path}/piqa.jsonl']}}"
    recipe = Recipe.load("gpt2-tiny", tasks).with_data(tmp_path / "corpus")
    recipe = recipe.model_copy(update={"init": InitConfig(source=str(tmp_path / "run"), weights="ab")})
    assert str(tmp_path) in recipe.to_toml()
    shown = published(recipe)
    assert (shown.data.corpus, shown.init) == ("corpus", InitConfig(source="run", weights="ab"))
    assert (shown.tasks.folder, shown.tasks.local) == ("mine", ("piqa=piqa.jsonl",))
    assert str(tmp_path) not in shown.to_toml()


def test_models_of_the_hub_keep_their_names_and_folders_lose_their_paths(tmp_path: Path) -> None:
    for source, name in (("hf:openai/gpt2", "hf:openai/gpt2"), (f"hf:{tmp_path}/gone", "hf:gone")):
        recipe = Recipe.load("gpt2-tiny").model_copy(update={"init": InitConfig(source=source)})
        assert published(recipe).init == InitConfig(source=name)


def test_a_recipe_without_paths_is_as_it_was() -> None:
    recipe = Recipe.load("gpt2-tiny")
    assert published(recipe) == recipe
