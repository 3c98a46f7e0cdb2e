"""`daybreak evaluate` with tasks: what is printed, as text and as JSON."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from daybreak import train
from daybreak.cli import app
from daybreak.data.shards import Corpus
from daybreak.errors import UserError
from daybreak.recipe import Recipe
from made_benchmarks import arc, lambada

pytestmark = pytest.mark.usefixtures("offline_hub")

SMALL = ["model.layers=1", "model.heads=2", "model.dim=16", "model.context=64", "data.window=64", "batch.tokens=128"]
OF_BYTES = ["data.tokenizer=bytes", "model.vocab_size=320", "evaluation.tokens=128"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> str:
    out = tmp_path_factory.mktemp("benchmarks") / "run"
    train(
        Recipe.load("gpt2-tiny", *SMALL, *OF_BYTES, "budget=2 steps"),
        data=corpus.path,
        out=out,
    )
    return str(out)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("items")
    return ["--local", f"lambada_openai={lambada(folder)}", "--local", f"arc_easy={arc(folder)}"]


def said(*words: str) -> str:
    result = CliRunner().invoke(app, ["evaluate", *words], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_a_table_and_json_say_the_same(run: str, local: list[str]) -> None:
    asked = (run, "--tasks", "lambada_openai, arc_easy", *local, "--few-shot", "1")
    document = json.loads(said(*asked, "--json"))
    assert document["run"] == run
    assert document["step"] == 2
    assert document["context"] == 64
    arc_easy = document["tasks"]["arc_easy"]
    assert arc_easy["metrics"].keys() == arc_easy["standard_errors"].keys() == {"acc", "acc_norm"}
    assert (arc_easy["version"], arc_easy["few_shot"], arc_easy["items"]) == ("1.0", 1, 12)
    table = said(*asked)
    assert f"{100 * arc_easy['metrics']['acc_norm']:.2f} %" in table
    assert "normalised accuracy" in table
    assert "context 64 tokens; lm-evaluation-harness 0.4" in table


def test_a_limit_is_said(run: str, local: list[str]) -> None:
    table = said(run, "--tasks", "arc_easy", *local[2:], "--limit", "3")
    assert "the first 3 items of each task alone" in table


def test_core_of_what_is_here_is_partial(run: str, local: list[str]) -> None:
    document = json.loads(said(run, "--suite", "core", *local, "--limit", "4", "--json"))
    assert document["tasks"].keys() == {"lambada_openai", "arc_easy"}
    assert len(document["missing"]) == 20
    centred = [task["centred"] for task in document["tasks"].values()]
    assert document["partial_core"] == pytest.approx(sum(centred) / 2)
    assert document["tasks"]["arc_easy"]["few_shot"] == 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--suite", "score"], r"--suite score is none; there are core, gpt-star"),
        (["--suite", "core", "--few-shot", "3"], r"leave out --tasks, --tasks-from and --few-shot"),
        (["--tasks", "arc_easy", "--local", "arc_easy"], r"local items 'arc_easy': write NAME=FILE"),
        (["--tasks", "arc_easy", "--context", "128"], r"has learned positions for 64 tokens, not for 128"),
        (["--tasks-from", "nowhere"], r"there is no folder nowhere of tasks"),
        (["--tasks", ""], r"name tasks, as --tasks"),
        (["--tasks", "a", "--local", f"a={__file__}", "--local", f"a={__file__}"], r"was given .* before; give one"),
    ],
)
def test_mistakes(words: list[str], message: str, run: str) -> None:
    with pytest.raises(UserError, match=message):
        CliRunner().invoke(app, ["evaluate", run, *words], catch_exceptions=False)


def test_a_model_of_transformers_that_is_not_there(local: list[str], tmp_path: Path) -> None:
    words = [f"hf:{tmp_path / 'gone'}", "--tasks", "arc_easy", *local[2:]]
    with pytest.raises(UserError, match=r"there is no folder .*gone"):
        CliRunner().invoke(app, ["evaluate", *words], catch_exceptions=False)
