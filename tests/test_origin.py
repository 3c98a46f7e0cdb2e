"""Runs that begin from a trained model: what they compute, what they need, and what does not fit."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from daybreak import load, train
from daybreak.checkpoint import list_checkpoints, step_of
from daybreak.data.order import Order
from daybreak.data.prepare import prepare
from daybreak.data.reading import Reading
from daybreak.data.shards import Corpus
from daybreak.errors import UserError
from daybreak.exporting import export
from daybreak.files import read_sealed
from daybreak.identity import write_identity
from daybreak.model.gpt import build
from daybreak.recipe import Recipe
from daybreak.run import Run
from made_text import write_documents
from test_run import assert_same, stopping_after

CPU = torch.device("cpu")
SOURCE = """
budget = "12 steps"
seed = 5

[data]
window = 16
tokenizer = "bytes"

[batch]
tokens = 64

[model]
layers = 2
heads = 2
dim = 16
context = 16
vocab_size = 264
bias = false

[optimizer]
lr = 1e-2

[evaluation]
every = "50%"
tokens = 256

[execution]
precision = "fp32"
micro_batch = 4
threads = 1
"""
TUNING = """
budget = "8 steps"
seed = 9

[init]

[data]
window = 8

[batch]
tokens = 32

[model]
layers = 1
heads = 1
dim = 8
context = 8
vocab_size = 264

[optimizer]
lr = 1e-3
weight_decay = 0.01
clip = 0.5

[schedule]
kind = "constant"
warmup = "0%"

[evaluation]
every = "50%"
tokens = 128

[execution]
precision = "fp32"
micro_batch = 2
threads = 1
fused_attention = false
"""
CHAT = "<|chat|>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("origin")
    (folder / "source.toml").write_text(SOURCE)
    (folder / "tuning.toml").write_text(TUNING)
    return folder


@pytest.fixture(scope="module")
def source(folder: Path, corpus: Corpus) -> Run:
    return train(folder / "source.toml", data=corpus.path, out=folder / "source")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Other text of the same tokenizer."""
    folder = tmp_path_factory.mktemp("other")
    text = write_documents(folder, documents=12, seed=3)
    return prepare([str(text)], folder / "corpus", tokenizer="bytes")


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Text with a special token that the source's tokenizer lacks."""
    folder = tmp_path_factory.mktemp("chat")
    (folder / "chat.txt").write_text(f"{CHAT}light of day" * 200)
    return prepare([str(folder / "chat.txt")], folder / "corpus", tokenizer="bytes", specials=[CHAT])


def tuning(folder: Path, source: Path | str, *overrides: str) -> Recipe:
    return Recipe.load(folder / "tuning.toml", f"init={source}", *overrides)


@pytest.fixture(scope="module")
def undisturbed(folder: Path, source: Run, other: Corpus) -> Run:
    return train(tuning(folder, source.path), data=other.path, out=folder / "undisturbed")


def test_it_is_a_loop_from_the_weights_of_the_source(undisturbed: Run, source: Run, other: Corpus) -> None:
    """By hand: torch's own optimizer, loss and clipping; every step counted from the first."""
    model = build(source.recipe.model, 0, CPU)
    model.load_state_dict(load_file(source.checkpoint.path / "model.safetensors"))
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices}, {"params": others, "weight_decay": 0.0}], lr=1e-3, betas=(0.9, 0.95), weight_decay=0.01
    )
    tokens = other.stream("train").read(0, len(other.stream("train"))).astype(np.int64)
    order = Order((len(tokens) - 1) // 8, seed=9)
    losses = []
    for step in range(8):
        rows = torch.stack(
            [torch.from_numpy(tokens[8 * n : 8 * n + 9]) for n in order.windows_at(4 * step, 4).tolist()]
        )
        loss = F.cross_entropy(model.logits(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        losses.append(loss.item())
    assert [record["loss"] for record in undisturbed.metrics()] == pytest.approx(losses, rel=1e-5)
    assert [record["lr"] for record in undisturbed.metrics()] == [1e-3] * 8
    trained = undisturbed.checkpoint.weights()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(trained[name], parameter.detach(), rtol=1e-4, atol=1e-5)


def test_it_begins_better_than_random_values(undisturbed: Run, folder: Path, other: Corpus, source: Run) -> None:
    assert undisturbed.metrics()[0]["loss"] < source.metrics()[0]["loss"] - 1


def test_stopped_it_goes_on_bit_for_bit_without_its_source(
    undisturbed: Run, folder: Path, source: Run, other: Corpus, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(source.path, copy)
    with stopping_after(3):
        stopped = train(tuning(folder, copy), data=other.path, out=tmp_path / "run")
    assert stopped.spent.steps == 3
    shutil.rmtree(copy)
    resumed = train(tmp_path / "run" / "recipe.toml", out=tmp_path / "run")
    assert resumed.finished
    assert_same(resumed, undisturbed)


def test_killed_before_its_first_checkpoint_it_begins_from_the_source_again(
    undisturbed: Run, folder: Path, source: Run, other: Corpus, tmp_path: Path
) -> None:
    with stopping_after(3):
        train(tuning(folder, source.path), data=other.path, out=tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    again = train(tmp_path / "run" / "recipe.toml", out=tmp_path / "run")
    assert_same(again, undisturbed)


def test_the_same_command_goes_on_though_the_source_was_trained_further(
    undisturbed: Run, folder: Path, source: Run, other: Corpus, tmp_path: Path
) -> None:
    trained = shutil.copytree(source.path, tmp_path / "source")
    with stopping_after(3):
        train(tuning(folder, trained), data=other.path, out=tmp_path / "run")
    shutil.rmtree(trained)
    shutil.copytree(undisturbed.path, trained)  # another checkpoint of the same shape
    again = train(tuning(folder, trained), data=other.path, out=tmp_path / "run")
    assert again.finished
    assert_same(again, undisturbed)


def test_begun_anew_from_random_values_it_forgets_its_source(source: Run, folder: Path, tmp_path: Path) -> None:
    """A folder in which a run of another recipe came to no checkpoint."""
    run = shutil.copytree(source.path, tmp_path / "run")
    before = tuning(folder, source.path)
    write_identity(run, before, Reading.open(source.recipe.data), {"source": "another"})
    shutil.rmtree(run / "checkpoints")
    again = train(source.path / "recipe.toml", out=run)
    assert "origin" not in read_sealed(again.path / "identity.json")


def test_the_run_says_what_it_began_from(undisturbed: Run, source: Run) -> None:
    origin = read_sealed(undisturbed.path / "identity.json")["origin"]
    weights = read_sealed(source.checkpoint.path / "manifest.json")["sha256"]["model.safetensors"]
    assert origin == {
        "source": str(source.path.resolve()),
        "step": 12,
        "weights": weights,
        "tokenizer": source.tokenizer.identity,
    }
    kept = load(undisturbed.path).recipe
    assert kept.init is not None
    assert (kept.init.source, kept.init.weights) == (str(source.path.resolve()), weights)
    assert kept.model == source.recipe.model


def test_a_kept_recipe_begins_from_the_same_weights_only(
    undisturbed: Run, folder: Path, source: Run, other: Corpus, tmp_path: Path
) -> None:
    text = (undisturbed.path / "recipe.toml").read_text()
    (tmp_path / "kept.toml").write_text(text.replace(f'weights = "{origin_hash(source)}"', f'weights = "{"0" * 64}"'))
    with pytest.raises(UserError, match="other weights now"):
        train(tmp_path / "kept.toml", data=other.path, out=tmp_path / "run")
    again = train(undisturbed.path / "recipe.toml", out=tmp_path / "again")
    assert_same(again, undisturbed)


def origin_hash(run: Run) -> str:
    sha256: str = read_sealed(run.checkpoint.path / "manifest.json")["sha256"]["model.safetensors"]
    return sha256


def test_a_checkpoint_is_a_source_too(folder: Path, source: Run, other: Corpus, tmp_path: Path) -> None:
    first, last = list_checkpoints(source.path / "checkpoints")
    assert step_of(first) < step_of(last) == 12
    run = train(tuning(folder, first, "budget=1steps"), data=other.path, out=tmp_path / "run")
    assert read_sealed(run.path / "identity.json")["origin"]["step"] == step_of(first)
    kept = shutil.copytree(source.path, tmp_path / "checkpoints/kept")  # a run, whatever the folder is called
    assert tuning(folder, kept).model == source.recipe.model


def test_the_model_is_the_sources_and_what_the_same_layer_says_of_it(folder: Path, source: Run) -> None:
    """The inherited one, of one layer, is gone; the tokenizer that was asked for, too."""
    recipe = tuning(folder, source.path, "model.dropout=0.1")
    assert recipe.model == source.recipe.model.model_copy(update={"dropout": 0.1})
    (folder / "child.toml").write_text(f'extends = "gpt2"\ninit = "{source.path}"\nbatch = {{ tokens = 1024 }}\n')
    child = Recipe.load(folder / "child.toml", "optimizer.lr=1e-5")
    assert child.model == source.recipe.model
    assert (child.data.tokenizer, child.data.window, child.optimizer.lr) == (None, 1024, 1e-5)
    (folder / "grandchild.toml").write_text('extends = "child.toml"\n[model]\ndropout = 0.3\n')
    assert Recipe.load(folder / "grandchild.toml").model.dropout == 0.3
    whole = Recipe.load(folder / "grandchild.toml", "init.resize=context")
    assert whole.init is not None
    assert (whole.init.source, whole.init.resize, whole.model.dropout) == (str(source.path), ("context",), 0.3)


def test_a_resolved_recipe_reads_back_without_its_source(folder: Path, tmp_path: Path, source: Run) -> None:
    recipe = tuning(folder, source.path)
    text = recipe.to_toml().replace(str(source.path), str(tmp_path / "gone"))
    (tmp_path / "kept.toml").write_text(text)
    assert Recipe.load(tmp_path / "kept.toml").model == recipe.model


def refused(folder: Path, source: Path | str, data: Corpus, tmp_path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        train(tuning(folder, source, *overrides), data=data.path, out=tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
    return str(error.value)


def test_what_does_not_fit_is_refused_with_both_sides(
    folder: Path, source: Run, corpus: Corpus, chat: Corpus, tmp_path: Path
) -> None:
    place = source.path
    said = refused(folder, place, corpus, tmp_path, "model.context=32")
    assert "model.context = 32 here, 16 in init" in said
    assert "init.resize=context" in said
    said = refused(folder, place, corpus, tmp_path, "model.layers=3")
    assert "model.layers: 3 here, 2 there" in said
    said = refused(folder, place, corpus, tmp_path, "model.vocab_size=128", "init.resize=vocab_size")
    assert "has 257 ids" in said
    assert "is not a run" in refused_to_load(folder, folder)
    assert "does not exist" in refused_to_load(folder, folder / "nothing")


def refused_to_load(folder: Path, source: Path | str) -> str:
    with pytest.raises(UserError) as error:
        tuning(folder, source)
    return str(error.value)


def test_another_tokenizer_is_refused(folder: Path, source: Run, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("light and day " * 100)
    characters = prepare([str(tmp_path / "text.txt")], tmp_path / "characters", tokenizer="chars")
    said = refused(folder, source.path, characters, tmp_path)
    assert "trained with tokenizer bytes" in said
    assert f"--tokenizer {source.path}" in said


def test_a_recipe_that_needs_a_source_says_so(folder: Path, corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="init=RUN"):
        train(folder / "tuning.toml", data=corpus.path, out=tmp_path / "run")
    assert Recipe.load("shakespeare-finetune").model == Recipe.load("crammed-gpt2").model
    with pytest.raises(UserError, match="init=RUN"):
        train("shakespeare-finetune", data=corpus.path, out=tmp_path / "run")


def test_damaged_and_unfinished_sources(folder: Path, source: Run, tmp_path: Path) -> None:
    shutil.copytree(source.path, tmp_path / "changed")
    (tmp_path / "changed" / "recipe.toml").write_text((source.path / "recipe.toml").read_text() + "\n# changed\n")
    assert "was changed after the run began" in refused_to_load(folder, tmp_path / "changed")
    shutil.copytree(source.path, tmp_path / "young", ignore=shutil.ignore_patterns("checkpoints"))
    with pytest.raises(UserError, match="no checkpoint to begin from"):
        train(tuning(folder, tmp_path / "young"), data=source.recipe.data.corpus, out=tmp_path / "run")


def test_another_source_for_a_run_that_began_is_refused(
    undisturbed: Run, folder: Path, source: Run, other: Corpus
) -> None:
    with pytest.raises(UserError, match=r"init\.weights"):
        train(tuning(folder, undisturbed.path), data=other.path, out=undisturbed.path)
    with pytest.raises(UserError, match=r"init"):
        train(folder / "source.toml", data=other.path, out=undisturbed.path)


def test_new_special_tokens_take_padded_ids(
    folder: Path, source: Run, chat: Corpus, corpus: Corpus, tmp_path: Path
) -> None:
    run = train(tuning(folder, source.path, "budget=40steps"), data=chat.path, out=tmp_path / "run")
    assert run.recipe.model.vocab_size == 264
    assert run.tokenizer.specials[CHAT] == 257
    losses = [record["loss"] for record in run.metrics()]
    assert losses[-1] < losses[0]
    measured = run.evaluate()
    assert measured.bytes == chat.validation.bytes
    text = tmp_path / "chat.txt"
    text.write_text(f"{CHAT}light of day")
    found = run.evaluate_text(str(text))
    assert found.amount.bytes == len(text.read_bytes())
    assert run.sample(CHAT, tokens=3)[0].text.startswith(CHAT)
    assert run.evaluate(corpus.path).tokens == source.evaluate().tokens  # text of the tokenizer that it extends


def test_a_longer_context_and_more_words_when_told_to(folder: Path, source: Run, other: Corpus, tmp_path: Path) -> None:
    told = (
        "model.context=32",
        "model.vocab_size=300",
        "init.resize=context,vocab_size",
        "budget=1steps",
        "optimizer.lr=1e-9",
    )
    run = train(tuning(folder, source.path, *told), data=other.path, out=tmp_path / "run")
    tokens = torch.arange(16)[None]
    torch.testing.assert_close(run.model.logits(tokens)[..., :264], source.model.logits(tokens), atol=1e-5, rtol=0)
    assert run.model.logits(torch.arange(32)[None]).shape == (1, 32, 300)


def test_a_model_that_computes_otherwise_with_the_same_weights_is_warned_of(
    folder: Path, source: Run, other: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tuning(folder, source.path, "model.head.soft_cap=15", "budget=1steps")
    train(recipe, data=other.path, out=tmp_path / "run")
    assert "computes differently" in capsys.readouterr().err


def test_frozen_parts_keep_their_bits_in_a_run_that_is_stopped(
    folder: Path, source: Run, other: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frozen = ("freeze=embedding,blocks.0", "diagnostics.every=25%")
    whole = train(tuning(folder, source.path, *frozen), data=other.path, out=tmp_path / "whole")
    assert "of them frozen" in capsys.readouterr().err
    with stopping_after(3):
        train(tuning(folder, source.path, *frozen), data=other.path, out=tmp_path / "run")
    resumed = train(tuning(folder, source.path, *frozen), data=other.path, out=tmp_path / "run")
    assert_same(resumed, whole)
    before, after = source.checkpoint.weights(), whole.checkpoint.weights()
    for name in before:
        is_frozen = name.startswith(("embedding.", "blocks.0."))
        assert torch.equal(before[name], after[name]) == is_frozen, name
    assert {key.rpartition("/")[0] for key in whole.checkpoint.moments()} == {
        name for name in before if not name.startswith(("embedding.", "blocks.0."))
    }
    with pytest.raises(UserError, match="freeze"):
        train(tuning(folder, source.path), data=other.path, out=tmp_path / "run")


def stops_early(folder: Path, source: Run, *overrides: str) -> Recipe:
    """Of so high a rate that its loss soon rises."""
    settings = ("optimizer.lr=0.2", "evaluation.every=2steps", "budget=40steps", "early_stop.patience=3")
    return tuning(folder, source.path, *settings, *overrides)


def test_a_run_that_no_longer_learns_ends_with_its_best_weights(
    folder: Path, source: Run, other: Corpus, tmp_path: Path
) -> None:
    whole = train(stops_early(folder, source), data=other.path, out=tmp_path / "whole")
    assert whole.finished
    assert whole.spent.steps < 40
    measured = {record["step"]: record["loss"] for record in whole.metrics("validation")}
    best = min(measured, key=lambda step: (measured[step], step))
    assert whole.spent.steps == best + 6
    (back,) = whole.metrics("lowest")
    assert back["back_to"] == best
    assert whole.final_loss == measured[best]
    kept = {path.name: path for path in (whole.path / "checkpoints").iterdir()}
    saved = load_file(kept[f"step-{best:08d}"] / "model.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in whole.checkpoint.weights().items())

    for step in (best + 1, best + 5):
        out = tmp_path / f"stopped-{step}"
        with stopping_after(step):
            train(stops_early(folder, source), data=other.path, out=out)
        assert_same(train(stops_early(folder, source), data=other.path, out=out), whole)


def test_at_the_end_of_its_budget_it_goes_back_too(folder: Path, source: Run, other: Corpus, tmp_path: Path) -> None:
    recipe = stops_early(folder, source, "early_stop.patience=30", "budget=20steps", "checkpoint.every=2steps")
    run = train(recipe, data=other.path, out=tmp_path / "run")
    assert run.spent.steps == 20
    measured = [record["loss"] for record in run.metrics("validation")]
    assert run.final_loss == min(measured)
    assert run.evaluate().loss < measured[-2] + 0.5


def test_a_model_of_transformers_is_a_source(
    undisturbed: Run, folder: Path, source: Run, other: Corpus, tmp_path: Path
) -> None:
    """What was exported and is begun from learns what the run itself does."""
    export(source.path, tmp_path / "exported")
    run = train(tuning(folder, f"hf:{tmp_path / 'exported'}"), data=other.path, out=tmp_path / "run")
    assert [record["loss"] for record in run.metrics()] == [record["loss"] for record in undisturbed.metrics()]
    origin = read_sealed(run.path / "identity.json")["origin"]
    assert origin["source"] == f"hf:{tmp_path / 'exported'}"
    (weights,) = (tmp_path / "exported").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\x80\x3f")
    with pytest.raises(UserError, match=r"init\.weights|other weights now"):
        train(run.path / "recipe.toml", out=tmp_path / "again")


def test_what_is_no_model_of_transformers_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty" in refused_to_load(folder, f"hf:{tmp_path / 'empty'}")


def test_a_share_of_the_old_text_keeps_more_of_it(folder: Path, source: Run, corpus: Corpus, tmp_path: Path) -> None:
    """At as many windows of the new text."""
    (tmp_path / "new.txt").write_text("0123456789 " * 400)
    new = prepare([str(tmp_path / "new.txt")], tmp_path / "new", tokenizer="bytes")
    settings = ("optimizer.lr=1e-2", "evaluation.every=50%")
    alone = train(tuning(folder, source.path, *settings, "budget=30steps"), data=new.path, out=tmp_path / "alone")
    mixture = f"data.mixture=[{{corpus='{corpus.path}', share=0.5}}, {{corpus='{new.path}', share=0.5}}]"
    mixed = train(tuning(folder, source.path, *settings, "budget=60steps", mixture), out=tmp_path / "mixed")
    old = [run.evaluate(corpus.path).loss for run in (source, alone, mixed)]
    assert old[1] > old[2] + 0.3
    assert mixed.evaluate(new.path).loss < source.evaluate(new.path).loss - 1
