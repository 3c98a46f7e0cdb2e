"""Runs: stopped and gone on bit for bit, refused when they are not the same, read back through `load`."""

import gzip
import hashlib
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from daybreak import load, train
from daybreak.data.prepare import prepare
from daybreak.data.shards import Corpus
from daybreak.errors import UserError
from daybreak.evaluate.loss import row_starts
from daybreak.recipe import Recipe
from daybreak.run import Run
from daybreak.training.metrics import Metrics
from daybreak.training.signals import StopRequest

STEPS = 20
RECIPE = """
budget = "20 steps"
seed = 5

[data]
window = 16

[batch]
tokens = 128

[model]
layers = 1
heads = 2
dim = 16
context = 16
vocab_size = 320
dropout = 0.2

[optimizer]
lr = 1e-2

[schedule]
warmup = "3 steps"

[evaluation]
every = "50%"
tokens = 256

[execution]
micro_batch = 2
threads = 1
"""


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def undisturbed(recipe_file: Path, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All steps in one sitting."""
    return train(Recipe.load(recipe_file), data=corpus.path, out=tmp_path_factory.mktemp("undisturbed") / "run")


@contextmanager
def stopping_after(*steps: int) -> Iterator[None]:
    """As if Ctrl-C was pressed during the step that follows each of `steps`."""
    stop = StopRequest()

    @contextmanager
    def request() -> Iterator[StopRequest]:
        stop.requested = False
        yield stop

    record_step = Metrics.step

    def record_and_stop(self: Metrics, record: dict[str, Any], *, seconds_left: float | None) -> None:
        record_step(self, record, seconds_left=seconds_left)
        stop.requested = record["step"] in steps

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daybreak.run.stop_on_signals", request)
        patch.setattr(Metrics, "step", record_and_stop)
        yield


@contextmanager
def crashing_at(step: int) -> Iterator[None]:
    """As if the process was killed once a step was recorded, before anything was saved."""

    class Killed(BaseException):
        pass

    record_step = Metrics.step

    def record_and_die(self: Metrics, record: dict[str, Any], *, seconds_left: float | None) -> None:
        record_step(self, record, seconds_left=seconds_left)
        if record["step"] == step:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Metrics, "step", record_and_die)
        with pytest.raises(Killed):
            yield


def tensors(run: Run) -> dict[str, torch.Tensor]:
    """Weights and optimizer state of a run's newest checkpoint."""
    moments = load_file(run.checkpoint.path / "optimizer.safetensors")
    weights = load_file(run.checkpoint.path / "model.safetensors")
    return weights | {f"optimizer/{name}": tensor for name, tensor in moments.items()}


def assert_same_tensors(one: Run, other: Run) -> None:
    ours, theirs = tensors(one), tensors(other)
    assert ours.keys() == theirs.keys()
    assert any(name.endswith("exp_avg_sq") for name in ours)
    for name in ours:
        assert ours[name].numpy().tobytes() == theirs[name].numpy().tobytes(), name


def course(run: Run) -> list[tuple[Any, ...]]:
    """What every step computed."""
    kept = ("step", "tokens", "loss", "lr", "gradient_norm", "progress", "progress_share")
    return [tuple(record[key] for key in kept) for record in run.metrics()]


def measured(run: Run) -> list[tuple[Any, ...]]:
    """What every evaluation found."""
    return [(record["step"], record["loss"], record["bits_per_byte"]) for record in run.metrics("validation")]


def assert_same(one: Run, other: Run) -> None:
    assert_same_tensors(one, other)
    assert course(one) == course(other)
    validation = [
        [(r["step"], r["loss"], r["bits_per_byte"]) for r in run.metrics("validation")] for run in (one, other)
    ]
    assert validation[0] == validation[1]


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("step", range(1, STEPS))
def test_a_run_stopped_at_any_step_goes_on_bit_for_bit(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, undisturbed: Run, step: int
) -> None:
    recipe = Recipe.load(recipe_file)
    with stopping_after(step):
        stopped = train(recipe, data=corpus.path, out=tmp_path / "run")
    assert not stopped.finished
    assert stopped.spent.steps == len(stopped.metrics()) == step
    resumed = train(recipe, data=corpus.path, out=tmp_path / "run")
    assert resumed.finished
    assert {record["attempt"] for record in resumed.metrics()} == {1, 2}
    assert_same(resumed, undisturbed)


def test_the_undisturbed_run_learns_with_dropout_and_accumulation(undisturbed: Run) -> None:
    assert undisturbed.recipe.model.dropout > 0
    assert undisturbed.execution.micro_batch * undisturbed.recipe.row_length < undisturbed.recipe.batch.tokens
    losses = [record["loss"] for record in undisturbed.metrics()]
    assert len(losses) == STEPS
    assert losses[0] == pytest.approx(math.log(320), abs=0.1)
    assert losses[-1] < losses[0] - 0.3


def test_a_run_stopped_after_every_step_goes_on_bit_for_bit(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, undisturbed: Run
) -> None:
    sittings = 0
    with stopping_after(*range(1, STEPS)):
        run = None
        while run is None or not run.finished:
            run = train(Recipe.load(recipe_file), data=corpus.path, out=tmp_path / "run")
            sittings += 1
    assert sittings == STEPS
    assert_same(run, undisturbed)


def test_a_crash_goes_back_to_the_last_checkpoint_and_ends_bit_for_bit(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, undisturbed: Run
) -> None:
    recipe = Recipe.load(recipe_file, "checkpoint.every=4 steps")
    with crashing_at(11):
        train(recipe, data=corpus.path, out=tmp_path / "run")
    assert load(tmp_path / "run").spent.steps == 8
    run = train(recipe, data=corpus.path, out=tmp_path / "run")
    attempts = [record["attempt"] for record in run.metrics()]
    assert attempts == [1] * 8 + [2] * 12
    assert_same(run, undisturbed)


def test_another_folder_gives_the_same_bits(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, undisturbed: Run
) -> None:
    assert_same(train(Recipe.load(recipe_file), data=corpus.path, out=tmp_path / "else" / "where"), undisturbed)


def test_another_seed_gives_another_run(tmp_path: Path, recipe_file: Path, corpus: Corpus, undisturbed: Run) -> None:
    other = train(Recipe.load(recipe_file, "seed=6", "budget=4 steps"), data=corpus.path, out=tmp_path / "run")
    assert other.metrics()[0]["loss"] != undisturbed.metrics()[0]["loss"]


def test_micro_batches_of_one_and_of_eight_see_the_same_windows(
    tmp_path: Path, recipe_file: Path, corpus: Corpus
) -> None:
    losses = {}
    for rows in (1, 8):
        recipe = Recipe.load(recipe_file, f"execution.micro_batch={rows}")
        run = train(recipe, data=corpus.path, out=tmp_path / f"{rows}")
        assert run.execution.micro_batch == rows
        losses[rows] = [record["loss"] for record in run.metrics()]
    assert losses[1] == pytest.approx(losses[8], abs=2e-4)
    assert losses[1][0] == pytest.approx(losses[8][0], abs=2e-6)


@pytest.mark.parametrize("override", ["optimizer.lr=2e-2", "seed=6", "budget=21 steps", "model.dropout=0.1"])
def test_another_recipe_in_a_runs_folder_is_refused_and_changes_nothing(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, undisturbed: Run, override: str
) -> None:
    shutil.copytree(undisturbed.path, tmp_path / "run")
    before = hashes(tmp_path / "run")
    with pytest.raises(UserError) as caught:
        train(Recipe.load(recipe_file, override), data=corpus.path, out=tmp_path / "run")
    assert override.split("=")[0] in str(caught.value)
    assert hashes(tmp_path / "run") == before


def test_another_corpus_for_a_run_is_refused(tmp_path: Path, recipe_file: Path, undisturbed: Run) -> None:
    shutil.copytree(undisturbed.path, tmp_path / "run")
    (tmp_path / "text.txt").write_text("another text altogether. " * 500)
    other = prepare([str(tmp_path / "text.txt")], tmp_path / "corpus", tokenizer="bytes")
    with pytest.raises(UserError, match="corpus"):
        train(Recipe.load(recipe_file), data=other.path, out=tmp_path / "run")


def test_a_finished_run_is_not_trained_again(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, undisturbed: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(undisturbed.path, tmp_path / "run")
    before = hashes(tmp_path / "run")
    run = train(Recipe.load(recipe_file), data=corpus.path, out=tmp_path / "run")
    assert run.finished
    assert hashes(tmp_path / "run") == before
    assert "is finished" in capsys.readouterr().err


def test_a_damaged_newest_checkpoint_is_passed_over_and_the_end_is_the_same(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, undisturbed: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe.load(recipe_file, "checkpoint.every=5 steps")
    with stopping_after(12):
        train(recipe, data=corpus.path, out=tmp_path / "run")
    damaged = tmp_path / "run" / "checkpoints" / "step-00000012" / "optimizer.safetensors"
    flip(damaged)
    run = train(recipe, data=corpus.path, out=tmp_path / "run")
    errors = capsys.readouterr().err
    assert str(damaged) in errors
    assert "going on from" in errors
    assert "step-00000010" in errors
    assert_same(run, undisturbed)


def test_a_finished_run_whose_last_checkpoint_is_damaged_is_finished_again(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, undisturbed: Run
) -> None:
    recipe = Recipe.load(recipe_file, "checkpoint.every=15 steps")
    train(recipe, data=corpus.path, out=tmp_path / "run")
    flip(tmp_path / "run" / "checkpoints" / "step-00000020" / "model.safetensors")
    damaged = load(tmp_path / "run")
    assert damaged.spent.steps == 15
    assert not damaged.finished
    assert_same_tensors(train(recipe, data=corpus.path, out=tmp_path / "run"), undisturbed)


def test_a_run_whose_checkpoints_are_all_damaged_is_refused_and_kept(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, undisturbed: Run
) -> None:
    shutil.copytree(undisturbed.path, tmp_path / "run")
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        flip(checkpoint / "model.safetensors")
    before = hashes(tmp_path / "run")
    with pytest.raises(UserError, match="damaged"):
        train(Recipe.load(recipe_file), data=corpus.path, out=tmp_path / "run")
    with pytest.raises(UserError, match="damaged"):
        load(tmp_path / "run")
    assert hashes(tmp_path / "run") == before


def test_a_recipe_edited_after_the_fact_is_refused(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, undisturbed: Run
) -> None:
    shutil.copytree(undisturbed.path, tmp_path / "run")
    file = tmp_path / "run" / "recipe.toml"
    edited = file.read_text().replace("lr = 0.01", "lr = 0.02")
    assert edited != file.read_text()
    file.write_text(edited)
    with pytest.raises(UserError, match=r"recipe\.toml.*changed"):
        load(tmp_path / "run")
    with pytest.raises(UserError):
        train(Recipe.load(recipe_file), data=corpus.path, out=tmp_path / "run")
    with pytest.raises(UserError):
        train(Recipe.load(recipe_file, "optimizer.lr=2e-2"), data=corpus.path, out=tmp_path / "run")


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run"):
        load(tmp_path)


def test_a_loaded_run_measures_every_token_once(undisturbed: Run, corpus: Corpus) -> None:
    run = load(undisturbed.path)
    result = run.evaluate()
    stream = corpus.stream("validation")
    losses: list[float] = []
    for start in row_starts(len(stream), 16):
        tokens = torch.from_numpy(stream.read(start, min(start + 17, len(stream))))
        with torch.no_grad():
            chances = run.model.logits(tokens[None, :-1])[0].double().log_softmax(-1)
        losses += (-chances[torch.arange(len(tokens) - 1), tokens[1:]]).tolist()
    assert result.tokens == len(losses) == len(stream) - 1
    assert result.loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    # A byte is a token here, but for the end-of-text in front of each document, which stands for none.
    assert result.bytes == corpus.validation.bytes
    assert result.bits_per_byte == pytest.approx(sum(losses) / corpus.validation.bytes / math.log(2), rel=1e-5)


def test_a_loaded_run_has_its_weights_and_samples_the_same_text_twice(undisturbed: Run) -> None:
    run = load(undisturbed.path)
    saved = load_file(run.checkpoint.path / "model.safetensors")
    assert all(torch.equal(parameter, saved[name]) for name, parameter in run.model.named_parameters())
    streamed: list[str] = []
    first = run.sample("day", tokens=12, count=2, stream=streamed.append)
    assert [each.text for each in first] == [
        each.text for each in load(undisturbed.path).sample("day", tokens=12, count=2)
    ]
    assert len(first) == 2
    assert first[0].text.startswith("day")
    assert first[0].completion.startswith("".join(streamed))
    assert first[0].completion != first[1].completion


def test_a_corpus_of_another_tokenizer_is_not_evaluated(tmp_path: Path, undisturbed: Run) -> None:
    (tmp_path / "text.txt").write_text("the light of day. " * 200)
    other = prepare([str(tmp_path / "text.txt")], tmp_path / "corpus", tokenizer="chars")
    with pytest.raises(UserError, match="tokenizer"):
        undisturbed.evaluate(other.path)


def test_a_corpus_of_the_same_tokenizer_is_evaluated(tmp_path: Path, undisturbed: Run) -> None:
    with gzip.open(tmp_path / "text.txt.gz", "wt") as file:
        file.write("the light of day. " * 200)
    other = prepare(
        [str(tmp_path / "text.txt.gz")], tmp_path / "corpus", tokenizer=str(undisturbed.path / "tokenizer.json")
    )
    result = undisturbed.evaluate(other.path)
    assert result.tokens == len(other.stream("validation")) - 1
    assert 0 < result.loss < math.log(320)


def test_a_tokenizer_larger_than_the_vocabulary_is_refused_with_the_way_out(
    tmp_path: Path, recipe_file: Path, corpus: Corpus
) -> None:
    with pytest.raises(UserError, match=r"model\.vocab_size=320"):
        train(Recipe.load(recipe_file, "model.vocab_size=256"), data=corpus.path, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_of_another_kind_than_the_recipes_is_refused_with_the_way_out(
    tmp_path: Path, recipe_file: Path, corpus: Corpus
) -> None:
    with pytest.raises(UserError, match=r"data\.tokenizer=bytes"):
        train(Recipe.load(recipe_file, "data.tokenizer=gpt2"), data=corpus.path, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ('curriculum={ lengths = [8, 16], stage = "5 steps" }', "curriculum"),
        ('batch.ramp={ start = 64, over = "5 steps" }', "batch.ramp"),
        ("optimizer={ kind = 'adamw8bit', lr = 1e-3 }", "adamw8bit"),
        ("budget=$20", r"\$20"),
    ],
)
def test_a_setting_that_does_not_work_yet_is_refused_by_name(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, override: str, named: str
) -> None:
    with pytest.raises(UserError, match=named):
        train(Recipe.load(recipe_file, override), data=corpus.path, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_mixture_is_refused_by_name(tmp_path: Path, recipe_file: Path) -> None:
    recipe = Recipe.load(recipe_file, 'data.mixture=[{ corpus = "a" }, { corpus = "b", epochs = 0.5 }]')
    with pytest.raises(UserError, match="mixture"):
        train(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_of_six_seconds_ends_within_them_with_its_learning_rate_decayed(
    tmp_path: Path, recipe_file: Path, corpus: Corpus
) -> None:
    recipe = Recipe.load(recipe_file, "budget=6s", "schedule={ kind = 'linear', warmup = '5%' }", "checkpoint.every=2s")
    began = time.monotonic()
    run = train(recipe, data=corpus.path, out=tmp_path / "run", started=began)
    took = time.monotonic() - began
    assert run.finished
    assert 5.0 < took < 7.0
    assert run.spent.elapsed_seconds <= 6.0
    rates = [record["lr"] for record in run.metrics()]
    assert max(rates) == pytest.approx(1e-2, rel=0.02)
    assert rates[0] < 1e-3
    assert rates[-1] < 0.03 * 1e-2
    assert rates.index(max(rates)) < 0.15 * len(rates)
    progress = [record["progress"] for record in run.metrics()]
    assert progress == sorted(progress)


def test_a_budget_that_counts_training_alone_ignores_what_came_before(
    tmp_path: Path, recipe_file: Path, corpus: Corpus
) -> None:
    recipe = Recipe.load(recipe_file, "budget=1s", "counts=train")
    run = train(recipe, data=corpus.path, out=tmp_path / "run", started=time.monotonic() - 1000)
    assert run.spent.steps > 10
    assert 0.9 < run.spent.train_seconds <= 1.0
    assert sum(record["milliseconds"] for record in run.metrics()) / 1000 == pytest.approx(run.spent.train_seconds)


def test_a_time_budget_that_was_stopped_goes_on_with_the_rest(
    tmp_path: Path, recipe_file: Path, corpus: Corpus
) -> None:
    recipe = Recipe.load(recipe_file, "budget=1000s")
    with stopping_after(10):
        train(recipe, data=corpus.path, out=tmp_path / "run", started=time.monotonic() - 500)
    with stopping_after(20):
        run = train(recipe, data=corpus.path, out=tmp_path / "run", started=time.monotonic() - 480)
    assert not run.finished
    assert 980 < run.spent.elapsed_seconds < 1000
    progress = [record["progress"] for record in run.metrics()]
    assert progress == sorted(progress)
    assert progress[9] < 0.01


def test_elapsed_time_adds_up_over_sittings_and_counts_work_that_was_lost(
    tmp_path: Path, recipe_file: Path, corpus: Corpus
) -> None:
    recipe = Recipe.load(recipe_file, "checkpoint.every=4 steps")
    with stopping_after(5):
        first = train(recipe, data=corpus.path, out=tmp_path / "run", started=time.monotonic() - 100)
    assert 100 < first.spent.elapsed_seconds < 110
    with crashing_at(7):
        train(recipe, data=corpus.path, out=tmp_path / "run", started=time.monotonic() - 50)
    last = train(recipe, data=corpus.path, out=tmp_path / "run", started=time.monotonic() - 20)
    assert 170 < last.spent.elapsed_seconds < 190
    assert last.spent.train_seconds < 20


def test_one_batch_is_learned_by_heart(tmp_path: Path) -> None:
    text = "Stately, plump Buck Mulligan came from the stairhead, bearing a bowl of lather."
    (tmp_path / "text.txt").write_text(text)
    corpus = prepare([str(tmp_path / "text.txt")], tmp_path / "corpus", tokenizer="bytes")
    (tmp_path / "recipe.toml").write_text(
        """
        budget = "200 steps"
        data = { window = 16 }
        batch = { tokens = 64 }
        model = { layers = 2, heads = 2, dim = 48, context = 16, vocab_size = 257 }
        optimizer = { lr = 1e-2, weight_decay = 0.0 }
        schedule = { kind = "linear", warmup = "10 steps" }
        evaluation = { every = "100%", tokens = 64 }
        execution = { threads = 1 }
        """
    )
    run = train(tmp_path / "recipe.toml", data=corpus.path, out=tmp_path / "run")
    losses = [record["loss"] for record in run.metrics()]
    assert losses[0] > 5
    assert losses[-1] < 0.1


def test_samples_while_training_are_recorded_and_change_nothing(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, undisturbed: Run
) -> None:
    recipe = Recipe.load(recipe_file, "samples={ every = '5 steps', prompt = 'the day', tokens = 4 }")
    run = train(recipe, data=corpus.path, out=tmp_path / "run")
    assert [record["step"] for record in run.metrics("sample")] == [5, 10, 15, 20]
    assert all(record["text"].startswith("the day") for record in run.metrics("sample"))
    assert_same(run, undisturbed)


def test_the_end_is_always_evaluated_and_evaluated_once(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, undisturbed: Run
) -> None:
    assert [record["step"] for record in undisturbed.metrics("validation")] == [10, 20]
    recipe = Recipe.load(recipe_file, "evaluation.every=9 steps")
    run = train(recipe, data=corpus.path, out=tmp_path / "run")
    assert [record["step"] for record in run.metrics("validation")] == [9, 18, 20]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert sum('"validation"' in line for line in lines) == 3
