"""Runs over packed documents: a step holds what the rows say, and stops, micro-batches and ranks change nothing."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from daybreak import Recipe, Run, load, train
from daybreak.checkpoint import list_checkpoints, open_checkpoint
from daybreak.data.order import Order
from daybreak.data.packing import DocumentRows, document_rows
from daybreak.data.prepare import prepare
from daybreak.data.reading import Reading
from daybreak.data.shards import Corpus
from daybreak.data.windows import IGNORED, WindowRows
from daybreak.errors import UserError
from daybreak.model.gpt import GPT

STEPS, WINDOW, ROWS, SEED = 12, 32, 8, 3
RECIPE = f"""
budget = "{STEPS} steps"
seed = {SEED}
data = {{ window = {WINDOW}, packing = "documents" }}
batch.tokens = {WINDOW * ROWS}
model = {{ layers = 2, heads = 2, dim = 16, context = {WINDOW}, vocab_size = 257, dropout = 0.1 }}
optimizer.lr = 1e-2
evaluation = {{ every = "50%", tokens = 100_000 }}
checkpoint = {{ every = "1 steps", keep = 100 }}
execution = {{ micro_batch = 2, precision = "fp32", threads = 1, device = "cpu" }}
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYBREAK_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    path = tmp_path_factory.mktemp("recipe") / "packed.toml"
    path.write_text(RECIPE)
    return Recipe.load(path)


@pytest.fixture(scope="module")
def short_documents(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """About 70 rows of documents of 1 to 61 bytes, the longer of which do not fit into one."""
    folder = tmp_path_factory.mktemp("short")
    lines = [f'{{"text": "{("day break " * 6)[: 1 + 7 * number % 61]}"}}' for number in range(80)]
    (folder / "documents.jsonl").write_text("\n".join(lines))
    return prepare([str(folder / "documents.jsonl")], folder / "corpus", tokenizer="bytes")


def with_micro_batch(recipe: Recipe, rows: int) -> Recipe:
    return recipe.model_copy(update={"execution": recipe.execution.model_copy(update={"micro_batch": rows})})


def losses(run: Run) -> list[float]:
    return [record["loss"] for record in run.metrics()]


def bits(run: Run) -> dict[str, bytes]:
    files = ("model.safetensors", "optimizer.safetensors")
    tensors = {f"{f}/{name}": tensor for f in files for name, tensor in load_file(run.checkpoint.path / f).items()}
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def test_a_step_holds_the_rows_of_the_order_and_learns_from_them(
    recipe: Recipe, short_documents: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, seen = GPT.forward, list[tuple[Tensor, Tensor]]()

    def watch(self: GPT, tokens: Tensor, targets: Tensor, seeds: Tensor | None = None) -> Tensor:
        if torch.is_grad_enabled():
            seen.append((tokens, targets))
        return forward(self, tokens, targets, seeds)

    monkeypatch.setattr(GPT, "forward", watch)
    run = train(recipe, data=short_documents.path, out=tmp_path / "run")
    rows = document_rows(short_documents, "train", WINDOW)
    assert len(rows) < STEPS * ROWS  # a second epoch begins
    expected = rows.read(Order(len(rows), SEED).windows_at(0, STEPS * ROWS))
    assert np.array_equal(torch.cat([tokens for tokens, _ in seen]).numpy(), expected.inputs)
    assert np.array_equal(torch.cat([targets for _, targets in seen]).numpy(), expected.targets)
    assert (expected.targets == IGNORED).any()
    # Behind the first step, whose model knows nothing, a mean over the targets that count is far below ln 257.
    assert losses(run)[0] == pytest.approx(math.log(257), rel=0.05)
    assert losses(run)[-1] < losses(run)[0] - 1


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    recipe: Recipe, short_documents: Corpus, tmp_path: Path
) -> None:
    undisturbed = train(recipe, data=short_documents.path, out=tmp_path / "undisturbed")
    for step in (3, 9):  # the run as it was after so many
        train(recipe, data=short_documents.path, out=tmp_path / "run")
        for path in list_checkpoints(tmp_path / "run" / "checkpoints"):
            if open_checkpoint(path).step > step:
                shutil.rmtree(path)
        assert load(tmp_path / "run").spent.steps == step
    again = train(recipe, data=short_documents.path, out=tmp_path / "run")
    assert again.finished
    assert losses(again) == losses(undisturbed)
    assert bits(again) == bits(undisturbed)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"prediction": {"share": 0.5}},
        {"curriculum": {"lengths": [5, 8, WINDOW], "stage": "3 steps"}, "schedule": {"warmup": "10%"}},
    ],
    ids=str,
)
def test_micro_batches_change_no_loss_though_their_rows_have_unequally_many_targets(
    settings: dict[str, Any], recipe: Recipe, short_documents: Corpus, tmp_path: Path
) -> None:
    asked = Recipe.model_validate(recipe.model_dump(mode="json") | settings)
    whole, parts = (
        train(with_micro_batch(asked, rows), data=short_documents.path, out=tmp_path / str(rows)) for rows in (8, 1)
    )
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-4)
    norms = [[record["gradient_norm"] for record in run.metrics()] for run in (whole, parts)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)


def test_validation_is_that_of_the_stream_and_the_same_of_a_run_that_was_opened(
    recipe: Recipe, short_documents: Corpus, tmp_path: Path
) -> None:
    run = train(recipe, data=short_documents.path, out=tmp_path / "run")
    evaluated = load(tmp_path / "run").evaluate()
    assert evaluated.tokens == short_documents.validation.tokens - 1
    assert run.final_loss == pytest.approx(evaluated.loss, rel=1e-6)
    assert run.model.separator == short_documents.tokenizer.end_of_text


def test_packing_cannot_change_within_a_run(recipe: Recipe, short_documents: Corpus, tmp_path: Path) -> None:
    train(recipe, data=short_documents.path, out=tmp_path / "run")
    shutil.rmtree(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])  # so that it would go on
    stream = recipe.model_copy(update={"data": recipe.data.model_copy(update={"packing": "stream"})})
    with pytest.raises(UserError, match=r"which cannot change.*\n.*data\.packing: stream here, documents there"):
        train(stream, data=short_documents.path, out=tmp_path / "run", accept_changes=True)


def test_a_mixture_packs_each_of_its_corpora(
    recipe: Recipe, short_documents: Corpus, corpus: Corpus, tmp_path: Path
) -> None:
    sources = [{"corpus": str(each.path)} for each in (short_documents, corpus)]
    mixed = Recipe.model_validate(
        recipe.model_dump(mode="json") | {"data": {"window": WINDOW, "packing": "documents", "mixture": sources}}
    )
    reading = Reading.open(mixed.data)
    parts = [document_rows(each, "train", WINDOW) for each in (short_documents, corpus)]
    assert reading.pass_windows == sum(map(len, parts))
    both = reading.windows.read(np.arange(reading.pass_windows, dtype=np.uint64))
    assert np.array_equal(both.targets, np.concatenate([_all(part).targets for part in parts]))
    assert train(mixed, out=tmp_path / "run").finished


def _all(rows: DocumentRows) -> WindowRows:
    return rows.read(np.arange(len(rows), dtype=np.uint64))
