"""Benchmarks while training: recorded at their steps, without any effect on what is learnt; mistakes said at once."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from daybreak import load, train
from daybreak.data.shards import Corpus
from daybreak.data.tokenizer import byte_tokenizer
from daybreak.distributed import Ranks
from daybreak.errors import UserError
from daybreak.evaluate.in_training import TaskEvaluation, TasksConfig
from daybreak.evaluate.likelihood import score_windows
from daybreak.evaluate.task_choice import TaskChoice
from daybreak.evaluate.windows import Window, rolling_windows
from daybreak.recipe import Recipe
from daybreak.run import Run
from made_benchmarks import arc, lambada

pytestmark = pytest.mark.usefixtures("offline_hub")

RECIPE = """
budget = "6 steps"
[data]
window = 64
[batch]
tokens = 256
[model]
layers = 1
heads = 2
dim = 16
context = 64
vocab_size = 320
dropout = 0.2
[optimizer]
lr = 1e-2
[evaluation]
tokens = 256
[execution]
micro_batch = 2
threads = 1
"""


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("items")
    return {"lambada_openai": lambada(folder), "arc_easy": arc(folder)}


@pytest.fixture(scope="module")
def settings(items: dict[str, Path]) -> list[str]:
    local = [f"{name}={file}" for name, file in items.items()]
    return ["tasks.every=3 steps", f"tasks.names={list(items)}", f"tasks.local={local}", "tasks.limit=8"]


def trained(folder: Path, corpus: Corpus, *overrides: str) -> Run:
    (folder / "recipe.toml").write_text(RECIPE)
    return train(Recipe.load(folder / "recipe.toml", *overrides), data=corpus.path, out=folder / "run")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus, settings: list[str]) -> Run:
    return trained(tmp_path_factory.mktemp("with"), corpus, *settings)


def test_they_are_recorded_and_change_no_bit(run: Run, tmp_path: Path, corpus: Corpus) -> None:
    records = run.metrics("tasks")
    assert [record["step"] for record in records] == [3, 6]
    assert set(records[0]) >= {"kind", "step", "tokens", "elapsed_seconds", "seconds", "results"}
    assert set(records[0]["results"]) == {"lambada_openai", "arc_easy"}
    assert set(records[0]["results"]["arc_easy"]) == {"acc", "acc_stderr", "acc_norm", "acc_norm_stderr"}
    before, after = (record["results"]["lambada_openai"]["perplexity"] for record in records)
    assert before != after
    without = trained(tmp_path, corpus)
    assert without.metrics("tasks") == []
    mine, other = (load_file(each.checkpoint.path / "model.safetensors") for each in (run, without))
    assert mine.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in mine.items())
    losses = [[record["loss"] for record in each.metrics()] for each in (run, without)]
    assert losses[0] == losses[1]


def test_the_last_record_is_what_the_finished_run_comes_to(run: Run, items: dict[str, Path]) -> None:
    results = load(run.path).evaluate_tasks(TaskChoice(tuple(items), local=items, limit=8))
    recorded = run.metrics("tasks")[-1]["results"]
    assert {task.name: task.recorded() for task in results.tasks} == recorded


def test_other_tasks_are_no_other_run(run: Run, corpus: Corpus, capfd: pytest.CaptureFixture[str]) -> None:
    again = train(Recipe.load(run.path / "recipe.toml", "tasks.every=2 steps"), data=corpus.path, out=run.path)
    assert again.finished
    assert "is finished" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tasks.every=50%", "tasks.names=['lambada_openay']"], "unknown task 'lambada_openay'"),
        (["tasks.every=50%", "tasks.names=['arc_easy']", "tasks.local=['arc_easy=gone.jsonl']"], "no file gone.jsonl"),
        (["tasks.every=50%", "tasks.names=['arc_easy']"], "--local arc_easy=FILE"),
    ],
)
def test_a_mistake_is_said_before_the_first_step(
    overrides: list[str], message: str, tmp_path: Path, corpus: Corpus
) -> None:
    with pytest.raises(UserError, match=message):
        trained(tmp_path, corpus, *overrides)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tasks.every=50%"], r"tasks\.every needs tasks\.names"),
        (["tasks.names=['arc_easy']"], r"tasks\.names needs tasks\.every"),
        (["tasks.every=50%", "tasks.names=['a']", "parallel.kind=fsdp"], r"tasks\.every does not work with .*fsdp"),
    ],
)
def test_settings_that_make_no_sense(overrides: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    with pytest.raises(UserError, match=message):
        Recipe.load(tmp_path / "recipe.toml", *overrides)


def test_a_missing_package_is_said_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lm_eval" else found(name))
    with pytest.raises(UserError, match=r"pip install 'daybreak\[eval\]'"):
        TaskEvaluation.of(TasksConfig(every="50%", names=("arc_easy",)), byte_tokenizer())


def test_a_stop_ends_them(run: Run, items: dict[str, Path]) -> None:
    config = TasksConfig(every="50%", names=("arc_easy",), local=(f"arc_easy={items['arc_easy']}",))
    tasks = TaskEvaluation.of(config, run.tokenizer)
    assert tasks is not None
    assert tasks.measure(run.model, "fp32", interrupted=lambda: True) is None
    assert tasks.measure(run.model, "fp32") is not None


class SomeRanks:
    """Ranks that take turns in one process: sums are collected, and given when all have come."""

    def __init__(self, count: int) -> None:
        self.parts: list[list[float]] = []
        self.count = count

    def rank(self, number: int) -> Any:
        ranks = Ranks(rank=number, count=self.count)
        return _Recording(ranks, self.parts)


class _Recording:
    def __init__(self, ranks: Ranks, parts: list[list[float]]) -> None:
        self.rank, self.count, self._parts = ranks.rank, ranks.count, parts

    def sums(self, values: list[float]) -> list[float]:
        self._parts.append(values)
        return [sum(column) for column in zip(*self._parts, strict=True)]


def test_ranks_share_the_work_and_find_the_same(run: Run) -> None:
    windows: list[Window] = [w for seed in range(5) for w in rolling_windows(range(seed, 200 + 9 * seed), 256, 64)]
    expected = score_windows(run.model, windows)
    some = SomeRanks(3)
    counts: list[list[int]] = [[], [], []]
    found = [score_windows(run.model, windows, advance=counts[n].append, ranks=some.rank(n)) for n in range(3)]
    assert found[-1] == expected  # the last rank has seen what all others did
    assert counts[0] == counts[1] == counts[2]
    assert sum(counts[0]) == len(windows)
