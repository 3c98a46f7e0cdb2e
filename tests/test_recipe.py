"""Recipes: the shipped ones count exactly what their systems state, and every mistake is named."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daybreak.duration import Duration, Unit
from daybreak.errors import UserError
from daybreak.model.gpt import count_multiplied, count_parameters
from daybreak.recipe import Recipe, merge, parse_overrides, recipe_names
from daybreak.training.flops import flops_per_token

SHIPPED = [
    "crammed-baseline",
    "crammed-gpt2",
    "demo",
    "fineweb-edu-gpt2",
    "gpt-star-127m",
    "gpt-star-1b",
    "gpt-star-303m",
    "gpt2",
    "gpt2-medium",
    "gpt2-tiny",
    "gpt3-small",
    "shakespeare-char",
    "shakespeare-char-cpu",
    "zero-one",
    "zero-one-tiny",
]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def refusal(recipe: str | Path, *overrides: str) -> str:
    """What is said of a recipe that is not valid."""
    with pytest.raises(UserError) as caught:
        Recipe.load(recipe, *overrides)
    return str(caught.value)


def test_these_recipes_are_shipped() -> None:
    assert set(SHIPPED) <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_builds_and_reads_back_from_its_toml(name: str, tmp_path: Path) -> None:
    recipe = Recipe.load(name)
    assert recipe.name == name
    assert recipe.description
    assert count_parameters(recipe.model) > 0
    again = Recipe.load(write(tmp_path / "resolved.toml", recipe.to_toml()))
    assert again == recipe
    assert again.fingerprint == recipe.fingerprint
    assert again.to_toml() == recipe.to_toml()
    assert recipe.differences(again) == []


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("crammed-gpt2", 109_481_856 + 1),  # the learned scale of the positions
        ("crammed-baseline", 124_373_760),
        ("gpt-star-127m", 127_030_272),
        ("gpt-star-303m", 303_825_408),
        ("gpt-star-1b", 1_009_309_696),
        ("fineweb-edu-gpt2", 124_475_904),
        ("gpt3-small", 124_475_904),
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("zero-one", 46_106_880),
    ],
)
def test_a_shipped_recipe_has_exactly_the_stated_parameters(name: str, count: int) -> None:
    assert count_parameters(Recipe.load(name).model) == count


@pytest.mark.parametrize(("name", "count"), [("crammed-baseline", 123_587_328), ("zero-one", 45_713_664)])
def test_without_the_position_table_it_has_exactly_the_stated_parameters(name: str, count: int) -> None:
    assert count_multiplied(Recipe.load(name).model) == count


@pytest.mark.parametrize(
    ("name", "megaflops"), [("crammed-baseline", 854.8), ("gpt2", 855.2), ("crammed-gpt2", 770.1), ("zero-one", 279.0)]
)
def test_a_token_takes_the_stated_flops(name: str, megaflops: float) -> None:
    recipe = Recipe.load(name)
    assert round(flops_per_token(recipe.model, recipe.row_length) / 1e6, 1) == megaflops


@pytest.mark.parametrize(
    ("name", "stated"),
    [
        (
            "crammed-gpt2",
            {
                "budget": "24h",
                "optimizer.lr": 1e-3,
                "optimizer.betas": [0.9, 0.98],
                "optimizer.eps": 1e-11,
                "optimizer.weight_decay": 0.01,
                "optimizer.clip": 0.5,
                "batch.tokens": 1536 * 1024,
                "model.vocab_size": 50_304,
                "model.bias": False,
                "model.mlp.hidden": 1536,
                "schedule.warmup": "2000 steps",
                "schedule.final": 0.1,
            },
        ),
        ("crammed-baseline", {"budget": "24h", "optimizer.lr": 6e-4, "batch.tokens": 1536 * 1024}),
        (
            "gpt-star-127m",
            {
                "budget": "51000 steps",
                "optimizer.lr": 6e-4,
                "optimizer.betas": [0.9, 0.95],
                "batch.tokens": 524_288,
                "schedule.warmup": "4000 steps",
                "schedule.hold": "10%",
                "schedule.final": 0.1,
                "model.residual": "parallel",
                "model.position.kind": "alibi",
                "data.window": 512,
            },
        ),
        ("gpt-star-303m", {"optimizer.lr": 3e-4, "model.heads": 8, "budget": "51000 steps"}),
        (
            "gpt-star-1b",
            {
                "optimizer.kind": "adamw8bit",
                "optimizer.lr": 2e-4,
                "optimizer.weight_decay": 0.1,
                "model.extra_norms.after_embedding": True,
                "curriculum.lengths": [128, 192, 256, 384, 512],
                "curriculum.stage": "3750 steps",
            },
        ),
        (
            "fineweb-edu-gpt2",
            {
                "budget": "19073 steps",
                "batch.tokens": 524_288,
                "schedule.warmup": "715 steps",
                "optimizer.lr": 6e-4,
                "optimizer.betas": [0.9, 0.95],
                "optimizer.eps": 1e-8,
                "optimizer.weight_decay": 0.1,
                "optimizer.clip": 1.0,
                "evaluation.every": "100 steps",
                "checkpoint.every": "5000 steps",
                "model.bias": True,
            },
        ),
        ("gpt3-small", {"budget": "50 steps", "schedule.warmup": "10 steps", "batch.tokens": 2**19}),
        (
            "zero-one",
            {
                "batch.tokens": 64 * 40 * 512,
                "execution.micro_batch": 64,
                "model.layers": 1,
                "evaluation.every": "40 steps",
            },
        ),
    ],
)
def test_a_shipped_recipe_has_the_stated_settings(name: str, stated: dict[str, Any]) -> None:
    resolved: Any = Recipe.load(name).model_dump(mode="json")
    for key, value in stated.items():
        found = resolved
        for part in key.split("."):
            found = found[part]
        assert found == value, key


MINIMAL = """
budget = "10 steps"
[data]
window = 64
[batch]
tokens = 128
[model]
layers = 1
heads = 2
dim = 16
context = 64
vocab_size = 300
mlp = { activation = "relu", hidden = 48 }
[optimizer]
lr = 1e-3
betas = [0.8, 0.9]
[schedule]
kind = "cosine"
warmup = "2 steps"
"""


def test_a_recipe_file_is_named_for_its_file_unless_it_says_otherwise(tmp_path: Path) -> None:
    assert Recipe.load(write(tmp_path / "mine.toml", MINIMAL)).name == "mine"
    assert Recipe.load(write(tmp_path / "mine.toml", 'name = "other"\n' + MINIMAL)).name == "other"


def test_a_recipe_file_extends_a_recipe_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder/base.toml", MINIMAL)
    write(tmp_path / "base.toml", MINIMAL.replace("10 steps", "99 steps"))
    child = write(tmp_path / "folder/child.toml", 'extends = "base.toml"\n[optimizer]\nlr = 5e-4\n')
    monkeypatch.chdir(tmp_path)
    recipe = Recipe.load(child)
    assert (recipe.name, recipe.optimizer.lr, recipe.optimizer.betas) == ("child", 5e-4, (0.8, 0.9))
    assert recipe.budget == Duration(10, Unit.STEPS)
    assert Recipe.load("folder/child.toml") == recipe


def test_a_recipe_file_extends_a_shipped_one_and_is_extended_again(tmp_path: Path) -> None:
    write(tmp_path / "a.toml", 'extends = "gpt2-tiny"\nseed = 1\n[model]\nlayers = 2\n')
    write(tmp_path / "b.toml", 'extends = "a.toml"\nseed = 2\n')
    recipe = Recipe.load(tmp_path / "b.toml")
    assert (recipe.seed, recipe.model.layers, recipe.model.dim) == (2, 2, 128)


def test_a_table_of_the_same_kind_merges_inline_or_not(tmp_path: Path) -> None:
    write(tmp_path / "base.toml", MINIMAL)
    for number, table in enumerate(
        [
            "mlp = { activation = 'silu' }",
            "mlp = { kind = 'plain', activation = 'silu' }",
            "[model.mlp]\nactivation='silu'",
        ]
    ):
        child = write(tmp_path / f"{number}.toml", f'extends = "base.toml"\n[model]\n{table}\n')
        mlp = Recipe.load(child).model.mlp
        assert (mlp.kind, mlp.activation, mlp.hidden) == ("plain", "silu", 48)


def test_a_table_of_another_kind_replaces(tmp_path: Path) -> None:
    write(tmp_path / "base.toml", MINIMAL)
    child = write(tmp_path / "child.toml", 'extends = "base.toml"\n[schedule]\nkind = "linear"\n')
    schedule = Recipe.load(child).schedule
    assert (schedule.kind, schedule.warmup) == ("linear", Duration(2, Unit.PERCENT))
    assert "model.mlp.hidden is missing" in refusal(tmp_path / "base.toml", "model.mlp.kind=glu")


@pytest.mark.parametrize("override", ["model.mlp.kind=plain", "optimizer.kind=adamw", "schedule.kind=cosine"])
@pytest.mark.parametrize("parent", ["file", "parent"])
def test_naming_the_kind_that_is_there_already_changes_nothing(override: str, parent: str, tmp_path: Path) -> None:
    base = write(tmp_path / "base.toml", MINIMAL.replace('kind = "cosine"\n', ""))
    child = write(tmp_path / "child.toml", 'extends = "base.toml"\nname = "base"\n')
    chosen = base if parent == "file" else child
    assert Recipe.load(chosen, override) == Recipe.load(chosen)


def test_naming_the_kind_of_a_shipped_recipe_keeps_its_warmup() -> None:
    assert Recipe.load("gpt2", "schedule.kind=cosine").schedule == Recipe.load("gpt2").schedule


def test_lists_replace() -> None:
    recipe = Recipe.load("gpt-star-127m", "data.mixture=[{corpus='mine'}]", "optimizer.betas=[0.5, 0.6]")
    assert [source.corpus for source in recipe.data.mixture] == ["mine"]
    assert recipe.optimizer.betas == (0.5, 0.6)


def test_merge_leaves_both_of_its_arguments_alone() -> None:
    base, layer = {"a": {"b": 1, "c": [1]}}, {"a": {"b": 2}}
    merged = merge(base, layer)
    merged["a"]["d"] = 3
    assert base == {"a": {"b": 1, "c": [1]}}
    assert layer == {"a": {"b": 2}}


@pytest.mark.parametrize(
    ("base", "layer", "merged"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}}, {"a": {"x": 1, "y": 3}}),
        ({"a": {"kind": "p", "x": 1}}, {"a": {"kind": "p", "y": 3}}, {"a": {"kind": "p", "x": 1, "y": 3}}),
        ({"a": {"kind": "p", "x": 1}}, {"a": {"kind": "q", "y": 3}}, {"a": {"kind": "q", "y": 3}}),
        ({"a": [1, 2, 3]}, {"a": [4]}, {"a": [4]}),
        ({"a": {"x": 1}}, {"a": 7}, {"a": 7}),
        ({"a": 7}, {"a": {"x": 1}}, {"a": {"x": 1}}),
        ({"a": {"b": {"c": 1, "d": 2}}}, {"a": {"b": {"d": 3}}}, {"a": {"b": {"c": 1, "d": 3}}}),
    ],
)
def test_merge_follows_its_rules(base: dict[str, Any], layer: dict[str, Any], merged: dict[str, Any]) -> None:
    assert merge(base, layer) == merged


def test_overrides_lie_over_the_file_and_the_last_of_two_wins() -> None:
    assert Recipe.load("gpt2", "budget=90s", "budget=2h").budget == Duration(7200, Unit.SECONDS)
    assert Recipe.load("gpt2", "optimizer.lr=1", "optimizer={lr=2}", "optimizer.lr=3e-4").optimizer.lr == 3e-4
    assert Recipe.load("gpt2", "optimizer.lr=3e-4").optimizer.eps == Recipe.load("gpt2").optimizer.eps


@pytest.mark.parametrize(
    ("word", "layer"),
    [
        ("seed=3", {"seed": 3}),
        ("optimizer.lr=1e-3", {"optimizer": {"lr": 1e-3}}),
        ("budget=90s", {"budget": "90s"}),
        ("budget=10B tokens", {"budget": "10B tokens"}),
        ("budget=4%", {"budget": "4%"}),
        ("batch.tokens=524_288", {"batch": {"tokens": 524_288}}),
        ("model.bias=false", {"model": {"bias": False}}),
        ("optimizer.betas=[0.9, 0.98]", {"optimizer": {"betas": [0.9, 0.98]}}),
        ("model.position={kind='alibi'}", {"model": {"position": {"kind": "alibi"}}}),
        ("data.tokenizer=gpt2", {"data": {"tokenizer": "gpt2"}}),
        ("data.tokenizer=bpe:4096", {"data": {"tokenizer": "bpe:4096"}}),
        ('name="3"', {"name": "3"}),
        ("samples.prompt=Hello, I'm = you", {"samples": {"prompt": "Hello, I'm = you"}}),
        ("samples.prompt=", {"samples": {"prompt": ""}}),
        ("description=2024-01-01", {"description": "2024-01-01"}),
        (" seed = 3 ", {"seed": 3}),
    ],
)
def test_an_override_is_toml_or_text_where_it_is_not(word: str, layer: dict[str, Any]) -> None:
    assert parse_overrides([word]) == layer


def test_overrides_of_one_table_come_together() -> None:
    assert parse_overrides(["optimizer.kind=adamw8bit", "optimizer.lr=1e-3", "seed=1"]) == {
        "optimizer": {"kind": "adamw8bit", "lr": 1e-3},
        "seed": 1,
    }


@pytest.mark.parametrize("word", ["", "seed", "=3", ".=3", "model.=3", ".lr=3", "model..lr=3"])
def test_what_is_no_override_is_refused(word: str) -> None:
    with pytest.raises(UserError, match=r"is not an override; write key=value"):
        parse_overrides([word])


@pytest.mark.parametrize(
    ("override", "unknown", "nearest"),
    [
        ("sede=1", "sede", "seed"),
        ("modl.heads=3", "modl", "model"),
        ("model.hads=3", "model.hads", "heads"),
        ("model.mlp.activatoin=relu", "model.mlp.activatoin", "activation"),
        ("optimizer.weight_decy=1", "optimizer.weight_decy", "weight_decay"),
        ("schedule.warmpu=1", "schedule.warmpu", "warmup"),
        ("model.extra_norms.shred=true", "model.extra_norms.shred", "shared"),
        ("samples.sampling.tok_k=1", "samples.sampling.tok_k", "top_k"),
        ("data.mixture=[{corpus='a', epoch=1}]", "epoch", "epochs"),
    ],
)
def test_an_unknown_key_names_the_nearest(override: str, unknown: str, nearest: str) -> None:
    message = refusal("gpt2", override)
    assert f"{unknown} (did you mean {nearest}?)" in message


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("model.mlp.kind=gluu", "glu"),
        ("schedule.kind=cosin", "cosine"),
        ("optimizer.kind=adam8bit", "adamw8bit"),
        ("model.position.kind=sinusoid", "sinusoidal"),
    ],
)
def test_an_unknown_kind_names_the_nearest(override: str, nearest: str) -> None:
    key, found = override.split("=")
    message = refusal("gpt2", override)
    assert key in message
    assert repr(found) in message
    assert f"did you mean {nearest}?" in message


def test_an_unknown_recipe_names_the_nearest() -> None:
    assert "did you mean crammed-gpt2?" in refusal("cramed-gpt2")
    assert "did you mean" not in refusal("xyzzy")


def test_a_missing_recipe_file_is_named(tmp_path: Path) -> None:
    assert "nowhere.toml does not exist" in refusal(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("overrides", "both"),
    [
        (["model.heads=5"], ["model.dim = 768", "model.heads = 5"]),
        (["model.attention.kv_heads=5"], ["model.heads = 12", "model.attention.kv_heads = 5"]),
        (["data.window=1536", "batch.tokens=1536"], ["data.window = 1536", "model.context = 1024"]),
        (["batch.tokens=1000"], ["batch.tokens = 1000", "data.window = 1024", "nearest is 1024"]),
        (["batch.tokens=2600"], ["batch.tokens = 2600", "data.window = 1024", "nearest is 3072"]),
        (["model.extra_norms.shared=true"], ["model.extra_norms.shared", "model.extra_norms.after_embedding"]),
    ],
)
def test_a_cross_field_error_names_both_fields(overrides: list[str], both: list[str]) -> None:
    message = refusal("gpt2", *overrides)
    for field in both:
        assert field in message


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("model.heads=-5", "-5"),
        ("optimizer.lr=0", "0"),
        ("model.residual=paralel", "'paralel'"),
        ("budget=soon", "'soon'"),
        ("model.layers=many", "'many'"),
        ("seed=-1", "-1"),
    ],
)
def test_a_value_that_will_not_do_is_named_with_its_key(override: str, shown: str) -> None:
    key = override.split("=")[0]
    problem = refusal("gpt2", override).split("\n")[1]
    assert key in problem
    assert shown in problem.replace("greater than 0", "").replace("than or equal to 0", "")


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.betas=[0.9]",
        "optimizer.betas=[]",
        "optimizer.betas=[1, 2, 3]",
        "data.mixture=[{}]",
        "model=3",
        "model=[]",
    ],
)
def test_a_value_of_the_wrong_shape_is_named(override: str) -> None:
    assert override.split("=")[0] in refusal("gpt2", override)


def test_two_mistakes_are_both_shown() -> None:
    message = refusal("gpt2", "sede=1", "optimizer.lr=-1", "model.heads=5")
    assert "sede" in message
    assert "optimizer.lr" in message
    assert "model.heads = 5" in message


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    text = MINIMAL.replace("dim = 16\n", "").replace('budget = "10 steps"\n', "")
    message = refusal(write(tmp_path / "a.toml", text))
    assert "model.dim is missing" in message
    assert "budget is missing" in message


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    assert "a.toml is not valid TOML" in refusal(write(tmp_path / "a.toml", "[model\n"))


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_recipes_that_extend_in_a_circle_are_named(names: list[str], tmp_path: Path) -> None:
    for name, parent in zip(names, [*names[1:], names[0]], strict=True):
        write(tmp_path / f"{name}.toml", f'extends = "{parent}.toml"\n')
    message = refusal(tmp_path / "a.toml")
    assert "extends itself" in message
    for name in names:
        assert f"{name}.toml" in message


def test_a_circle_that_leads_through_folders_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    write(tmp_path / "one/a.toml", 'extends = "../two/b.toml"\n')
    write(tmp_path / "two/b.toml", 'extends = "../one/a.toml"\n')
    assert "extends itself" in refusal(tmp_path / "one/a.toml")


@pytest.mark.parametrize("parent", ["nowhere.toml", "gpt22"])
def test_a_missing_parent_is_named(parent: str, tmp_path: Path) -> None:
    assert parent in refusal(write(tmp_path / "a.toml", f'extends = "{parent}"\n'))


def test_a_mistake_in_a_parent_names_the_parent(tmp_path: Path) -> None:
    write(tmp_path / "base.toml", MINIMAL + "colour = 1\n")
    message = refusal(write(tmp_path / "a.toml", 'extends = "base.toml"\n'))
    assert "base.toml" in message
    assert "schedule.colour" in message


@settings(max_examples=60, deadline=None)
@given(
    description=st.text(max_size=20),
    corpus=st.none() | st.text(min_size=1, max_size=20),
    lr=st.floats(1e-12, 1e6),
    seed=st.integers(0, 2**40),
    tokens=st.integers(1, 10**6),
    curriculum=st.booleans(),
)
def test_any_recipe_reads_back_from_its_toml(
    description: str,
    corpus: str | None,
    lr: float,
    seed: int,
    tokens: int,
    curriculum: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    content: dict[str, Any] = tomllib.loads(MINIMAL)
    content |= {"name": "any", "description": description, "seed": seed, "budget": f"{tokens} tokens"}
    content["optimizer"]["lr"] = lr
    content["data"]["corpus"] = corpus
    content["model"]["position"] = {"kind": "rotary", "base": lr}
    if curriculum:
        content["curriculum"] = {"lengths": [16, 24, 64], "stage": "5 steps"}
    recipe = Recipe.model_validate(content)
    path = write(tmp_path_factory.mktemp("recipe") / "resolved.toml", recipe.to_toml())
    assert Recipe.load(path) == recipe


def test_resolving_is_written_out_in_full(tmp_path: Path) -> None:
    """What a run keeps does not change when a default does."""
    written = tomllib.loads(Recipe.load("crammed-gpt2").to_toml())
    assert "extends" not in written
    assert written["model"]["norm"]["eps"] == 1e-5
    assert written["schedule"]["hold"] == "0%"
    assert written["optimizer"]["kind"] == "adamw"


def test_the_fingerprint_is_of_what_a_step_computes() -> None:
    plain = Recipe.load("gpt2").fingerprint
    kept = ["name=other", "description=x", "data.corpus=elsewhere", "execution.micro_batch=2", "samples.tokens=5"]
    changed = [
        "seed=1",
        "model.bias=false",
        "optimizer.lr=1e-3",
        "data.window=512",
        "schedule.final=0",
        "batch.tokens=1024",
        "prediction.share=0.5",
        "prediction.choose=hardest",
    ]
    for override in kept:
        assert Recipe.load("gpt2", override).fingerprint == plain, override
    assert len({plain, *(Recipe.load("gpt2", override).fingerprint for override in changed)}) == 1 + len(changed)


def test_differences_are_named_with_both_values() -> None:
    one, other = Recipe.load("gpt2"), Recipe.load("gpt2", "optimizer.lr=1e-3", "budget=2h")
    assert one.differences(other) == ["budget: 600000 steps here, 2h there", "optimizer.lr: 0.0006 here, 0.001 there"]
    assert one.differences(one) == []


def test_with_data_takes_the_place_of_a_mixture() -> None:
    recipe = Recipe.load("gpt-star-127m").with_data("mine")
    assert (recipe.data.corpus, recipe.data.mixture, recipe.data.window) == ("mine", (), 512)


def test_a_row_is_a_window_or_a_piece_of_one() -> None:
    assert Recipe.load("gpt2").row_length == 1024
    assert Recipe.load("gpt2", "data.window=512").row_length == 512
    assert Recipe.load("gpt2", "model.context=256").row_length == 256


def test_recipes_cannot_be_changed() -> None:
    recipe = Recipe.load("gpt2")
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]
