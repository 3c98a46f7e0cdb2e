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
from daybreak.checkpoint import list_checkpoints, open_checkpoint
from daybreak.data.prepare import prepare
from daybreak.data.shards import Corpus
from daybreak.errors import Stopped, UserError
from daybreak.evaluate.loss import row_starts
from daybreak.model.gpt import GPT
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


class Stopping:
    """Stands for whoever presses Ctrl-C: hands out a request of its own to every sitting."""

    stop: StopRequest

    @contextmanager
    def request(self, after: float | None = None) -> Iterator[StopRequest]:
        assert after is None
        self.stop = StopRequest()
        yield self.stop

    def now(self) -> None:
        self.stop.request("Ctrl-C")


@contextmanager
def stopping() -> Iterator[tuple[Stopping, pytest.MonkeyPatch]]:
    with pytest.MonkeyPatch.context() as patch:
        person = Stopping()
        patch.setattr("daybreak.run.stop_on_signals", person.request)
        yield person, patch


@contextmanager
def stopping_after(*steps: int) -> Iterator[None]:
    """As if Ctrl-C was pressed as soon as each of `steps` was done."""
    record_step = Metrics.step
    with stopping() as (person, patch):

        def record_and_stop(self: Metrics, record: dict[str, Any]) -> None:
            record_step(self, record)
            if record["step"] in steps:
                person.now()

        patch.setattr(Metrics, "step", record_and_stop)
        yield


@contextmanager
def stopping_in_pass(number: int, *, training: bool) -> Iterator[None]:
    """As if Ctrl-C was pressed during this forward pass of the sitting, of training or of evaluation."""
    passed, forward = 0, GPT.forward
    with stopping() as (person, patch):

        def count(self: GPT, *args: Any) -> torch.Tensor:
            nonlocal passed
            passed += torch.is_grad_enabled() == training
            if passed == number:
                passed += 1
                person.now()
            return forward(self, *args)

        patch.setattr(GPT, "forward", count)
        yield


@contextmanager
def crashing_at(step: int) -> Iterator[None]:
    """As if the process was killed once a step was recorded, before anything was saved."""

    class Killed(BaseException):
        pass

    record_step = Metrics.step

    def record_and_die(self: Metrics, record: dict[str, Any]) -> None:
        record_step(self, record)
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


@pytest.mark.parametrize(("step", "part"), [(1, 2), (1, 4), (2, 1), (11, 2), (11, 3), (20, 1), (20, 4)])
def test_a_run_stopped_inside_a_step_begins_it_anew_bit_for_bit(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, undisturbed: Run, step: int, part: int
) -> None:
    """Four micro-batches a step; what is stopped in the last of them is as good as done."""
    recipe = Recipe.load(recipe_file)
    with stopping_in_pass(4 * (step - 1) + part, training=True):
        stopped = train(recipe, data=corpus.path, out=tmp_path / "run")
    assert not stopped.finished
    assert stopped.spent.steps == len(stopped.metrics()) == (step if part == 4 else step - 1)
    resumed = train(recipe, data=corpus.path, out=tmp_path / "run")
    assert resumed.finished
    assert_same(resumed, undisturbed)


@pytest.mark.parametrize("number", [1, 2, 7, 8, 9, 15, 16])
def test_a_run_stopped_inside_an_evaluation_makes_up_for_it(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, undisturbed: Run, number: int
) -> None:
    """Eight batches an evaluation, at steps 10 and 20; what is stopped in the last of them is as good as done."""
    recipe = Recipe.load(recipe_file)
    with stopping_in_pass(number, training=False):
        stopped = train(recipe, data=corpus.path, out=tmp_path / "run")
    assert stopped.spent.steps == (10 if number <= 8 else 20)
    assert [record["step"] for record in stopped.metrics("validation")] == [10, 20][: number // 8]
    assert stopped.finished == (number == 16)
    resumed = train(recipe, data=corpus.path, out=tmp_path / "run")
    assert resumed.finished
    assert_same(resumed, undisturbed)
    assert resumed.final_loss == undisturbed.final_loss


def test_an_evaluation_stopped_twice_is_still_made_up_for(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, undisturbed: Run
) -> None:
    recipe = Recipe.load(recipe_file)
    for _ in range(2):
        with stopping_in_pass(3, training=False):
            stopped = train(recipe, data=corpus.path, out=tmp_path / "run")
        assert stopped.spent.steps == 10
        assert stopped.metrics("validation") == []
    assert_same(train(recipe, data=corpus.path, out=tmp_path / "run"), undisturbed)


def test_a_run_stopped_before_its_first_step_goes_on_from_there(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, undisturbed: Run
) -> None:
    recipe = Recipe.load(recipe_file)
    with stopping_in_pass(1, training=True):
        stopped = train(recipe, data=corpus.path, out=tmp_path / "run")
    assert stopped.spent.steps == 0
    assert stopped.metrics() == []
    assert_same(train(recipe, data=corpus.path, out=tmp_path / "run"), undisturbed)


def test_a_stop_before_anything_was_done_leaves_nothing(tmp_path: Path, recipe_file: Path, corpus: Corpus) -> None:
    with stopping() as (person, patch):
        opened = Corpus.open

        def open_and_stop(path: Path) -> Corpus:
            person.now()
            return opened(path)

        patch.setattr(Corpus, "open", open_and_stop)
        with pytest.raises(Stopped):
            train(Recipe.load(recipe_file), data=corpus.path, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_stops_after_the_time_it_is_given_and_goes_on(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe.load(recipe_file, "budget=100000 steps")
    began = time.monotonic()
    stopped = train(recipe, data=corpus.path, out=tmp_path / "run", stop_after="2s")
    took = time.monotonic() - began
    assert not stopped.finished
    assert stopped.spent.steps > 0
    assert 2.0 <= took < 5.0
    assert "the time is over" in capsys.readouterr().err
    again = train(recipe, data=corpus.path, out=tmp_path / "run", stop_after="2s", started=time.monotonic() - 1)
    assert again.spent.steps > stopped.spent.steps
    # A second of the sitting was over before it began.
    assert again.spent.elapsed_seconds - stopped.spent.elapsed_seconds < 2.8


def test_a_stop_after_the_end_stops_nothing(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, undisturbed: Run
) -> None:
    assert_same(train(Recipe.load(recipe_file), data=corpus.path, out=tmp_path / "run", stop_after="1h"), undisturbed)


@pytest.mark.parametrize("stop_after", ["10 steps", "10%", "soon", "0s", "-3s"])
def test_a_stop_after_what_is_no_time_is_refused(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, stop_after: str
) -> None:
    with pytest.raises(UserError, match="stop_after"):
        train(Recipe.load(recipe_file), data=corpus.path, out=tmp_path / "run", stop_after=stop_after)
    assert not (tmp_path / "run").exists()


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


FIXED = ["model.dropout=0.1", "model.layers=2", "data.window=32", "data.tokenizer=bytes", "optimizer.kind=muon"]
COURSE = [
    "optimizer.lr=2e-2",
    "optimizer.clip=0.5",
    "schedule.warmup=4 steps",
    "schedule.kind=wsd",
    "seed=6",
    "budget=21 steps",
    "counts=train",
    "batch.tokens=256",
    "guard.spike=5",
    "prediction.share=0.5",
]
FREE = [
    "evaluation.every=30%",
    "evaluation.tokens=128",
    "checkpoint.every=3 steps",
    "checkpoint.keep_best=true",
    "samples={ every = '5 steps', prompt = 'the day', tokens = 4 }",
    "execution.micro_batch=8",
    "parallel.timeout=30s",
    "name=other",
    "description=another",
]


@pytest.fixture(scope="module")
def half_done(recipe_file: Path, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which 10 steps and their evaluation are done."""
    path = tmp_path_factory.mktemp("half") / "run"
    with stopping_in_pass(8, training=False):
        assert not train(Recipe.load(recipe_file), data=corpus.path, out=path).finished
    return path


@pytest.mark.parametrize("override", [*FIXED, *COURSE])
@pytest.mark.parametrize("state", ["finished", "half done"])
def test_another_recipe_in_a_runs_folder_is_refused_and_changes_nothing(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, undisturbed: Run, half_done: Path, state: str, override: str
) -> None:
    shutil.copytree(undisturbed.path if state == "finished" else half_done, tmp_path / "run")
    before = hashes(tmp_path / "run")
    with pytest.raises(UserError) as caught:
        train(Recipe.load(recipe_file, override), data=corpus.path, out=tmp_path / "run")
    assert override.split("=")[0] in str(caught.value)
    assert hashes(tmp_path / "run") == before


@pytest.mark.parametrize("override", FIXED)
def test_what_tensors_are_made_for_cannot_change_though_changes_are_accepted(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, half_done: Path, override: str
) -> None:
    shutil.copytree(half_done, tmp_path / "run")
    before = hashes(tmp_path / "run")
    with pytest.raises(UserError, match="cannot change") as caught:
        train(Recipe.load(recipe_file, override), data=corpus.path, out=tmp_path / "run", accept_changes=True)
    assert override.split("=")[0] in str(caught.value)
    assert hashes(tmp_path / "run") == before


@pytest.mark.parametrize("override", COURSE)
def test_a_run_goes_on_with_other_settings_where_they_are_accepted(
    tmp_path: Path,
    recipe_file: Path,
    corpus: Corpus,
    half_done: Path,
    override: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(half_done, tmp_path / "run")
    before, recipe, setting = course(load(half_done)), Recipe.load(recipe_file, override), override.split("=")[0]
    assert len(before) == 10
    run = train(recipe, data=corpus.path, out=tmp_path / "run", accept_changes=True)
    said = capsys.readouterr().err
    assert "goes on with other settings:\n" in said
    assert f"\n  {setting}: " in said
    assert "going on from step 10" in said
    assert run.finished
    assert course(run)[:10] == before
    (event,) = run.metrics("changes")
    assert event["step"] == 10
    assert any(line.startswith(f"{setting}: ") for line in event["settings"])
    assert run.recipe.differences(recipe.with_data(corpus.path.resolve())) == []
    # It is the run's own setting from now on, and the one before is another.
    assert train(recipe, data=corpus.path, out=tmp_path / "run").finished
    with pytest.raises(UserError, match=setting):
        train(Recipe.load(recipe_file), data=corpus.path, out=tmp_path / "run")


def test_a_crash_while_changes_are_written_leaves_the_settings_before_or_the_new_ones(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, half_done: Path, undisturbed: Run
) -> None:
    shutil.copytree(half_done, tmp_path / "run")
    recipe = Recipe.load(recipe_file, "optimizer.lr=2e-2")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daybreak.identity.write_bytes", die)  # the recipe, behind the identity
        with pytest.raises(KeyboardInterrupt):
            train(recipe, data=corpus.path, out=tmp_path / "run", accept_changes=True)
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    assert load(tmp_path / "run").recipe.optimizer.lr == 1e-2
    assert_same(train(Recipe.load(recipe_file), data=corpus.path, out=tmp_path / "run"), undisturbed)
    run = train(recipe, data=corpus.path, out=tmp_path / "again", accept_changes=True)
    assert run.finished
    assert run.recipe.optimizer.lr == 2e-2


@pytest.mark.parametrize("tokens", [16, 48, 112])
def test_a_batch_that_the_micro_batch_does_not_divide_may_be_accepted(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, half_done: Path, tokens: int
) -> None:
    shutil.copytree(half_done, tmp_path / "run")
    recipe = Recipe.load(recipe_file, f"batch.tokens={tokens}", "execution.micro_batch=2")
    run = train(recipe, data=corpus.path, out=tmp_path / "run", accept_changes=True)
    assert run.finished
    assert run.spent.tokens == 10 * 128 + 10 * tokens


@pytest.mark.parametrize("override", FREE)
def test_settings_that_change_no_step_may_change_without_asking_and_that_is_said(
    tmp_path: Path,
    recipe_file: Path,
    corpus: Corpus,
    half_done: Path,
    undisturbed: Run,
    override: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(half_done, tmp_path / "run")
    run = train(Recipe.load(recipe_file, override), data=corpus.path, out=tmp_path / "run")
    setting = override.split("=")[0]
    assert f"goes on with other settings:\n  {setting}" in capsys.readouterr().err
    assert run.finished
    assert run.metrics("changes")[0]["settings"][0].startswith(setting)
    assert load(tmp_path / "run").recipe.differences(undisturbed.recipe) != []
    if setting == "execution.micro_batch":  # the same steps but for the last bits
        assert run.execution.micro_batch == 8
        losses = ([record["loss"] for record in each.metrics()] for each in (run, undisturbed))
        assert next(losses) == pytest.approx(next(losses), abs=2e-4)
    else:
        assert_same_tensors(run, undisturbed)
        assert course(run) == course(undisturbed)


def test_evaluation_that_was_changed_is_done_as_it_is_now(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, half_done: Path, undisturbed: Run
) -> None:
    shutil.copytree(half_done, tmp_path / "run")
    run = train(Recipe.load(recipe_file, "evaluation.every=3 steps"), data=corpus.path, out=tmp_path / "run")
    assert [record["step"] for record in run.metrics("validation")] == [10, 12, 15, 18, 20]
    assert run.metrics("validation")[0] == load(half_done).metrics("validation")[0]
    assert_same_tensors(run, undisturbed)


def test_the_learning_rate_that_was_accepted_is_the_one_from_there_on(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, half_done: Path, undisturbed: Run
) -> None:
    shutil.copytree(half_done, tmp_path / "run")
    recipe = Recipe.load(recipe_file, "optimizer.lr=2e-2")
    run = train(recipe, data=corpus.path, out=tmp_path / "run", accept_changes=True)
    ratios = [ours["lr"] / theirs["lr"] for ours, theirs in zip(run.metrics(), undisturbed.metrics(), strict=True)]
    assert ratios == pytest.approx([1.0] * 10 + [2.0] * 10)


def test_a_run_without_a_checkpoint_is_begun_anew_with_other_settings(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, half_done: Path
) -> None:
    shutil.copytree(half_done, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    run = train(Recipe.load(recipe_file, "model.layers=2"), data=corpus.path, out=tmp_path / "run")
    assert run.finished
    assert {record["attempt"] for record in run.metrics()} == {1}
    assert run.recipe.model.layers == 2


def other_corpus(folder: Path, tokenizer: str) -> Corpus:
    (folder / "text.txt").write_text("another text altogether. " * 500)
    return prepare([str(folder / "text.txt")], folder / "corpus", tokenizer=tokenizer)


def test_another_corpus_for_a_run_is_refused(
    tmp_path: Path, recipe_file: Path, half_done: Path, undisturbed: Run
) -> None:
    other = other_corpus(tmp_path, "bytes")
    for path in (undisturbed.path, half_done):
        shutil.copytree(path, tmp_path / "run", dirs_exist_ok=True)
        before = hashes(tmp_path / "run")
        with pytest.raises(UserError, match="another version of the corpus"):
            train(Recipe.load(recipe_file), data=other.path, out=tmp_path / "run")
        assert hashes(tmp_path / "run") == before


def test_another_corpus_of_the_same_tokenizer_may_be_accepted(
    tmp_path: Path, recipe_file: Path, half_done: Path
) -> None:
    shutil.copytree(half_done, tmp_path / "run")
    other = other_corpus(tmp_path, "bytes")
    run = train(Recipe.load(recipe_file), data=other.path, out=tmp_path / "run", accept_changes=True)
    assert run.finished
    assert "corpus" in run.metrics("changes")[0]["settings"][0]
    assert run.evaluate().tokens == len(other.stream("validation")) - 1


def test_a_corpus_of_another_tokenizer_cannot_be_accepted(tmp_path: Path, recipe_file: Path, half_done: Path) -> None:
    shutil.copytree(half_done, tmp_path / "run")
    other = other_corpus(tmp_path, "chars")
    before = hashes(tmp_path / "run")
    with pytest.raises(UserError, match="tokenizer"):
        train(Recipe.load(recipe_file), data=other.path, out=tmp_path / "run", accept_changes=True)
    assert hashes(tmp_path / "run") == before


def test_a_corpus_that_was_moved_is_the_same(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, half_done: Path, undisturbed: Run
) -> None:
    shutil.copytree(half_done, tmp_path / "run")
    shutil.copytree(corpus.path, tmp_path / "moved")
    assert_same(train(Recipe.load(recipe_file), data=tmp_path / "moved", out=tmp_path / "run"), undisturbed)


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
    assert f"going on from step 10 of {tmp_path / 'run'}" in errors
    assert_same(run, undisturbed)


def kept_steps(run: Run) -> list[int]:
    return [open_checkpoint(path).step for path in list_checkpoints(run.path / "checkpoints")]


def test_written_in_the_background_checkpoints_are_the_same(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, undisturbed: Run
) -> None:
    recipe = Recipe.load(recipe_file, "checkpoint={ every = '3 steps', keep = 100, background = true }")
    with stopping_after(13):
        train(recipe, data=corpus.path, out=tmp_path / "run")
    run = train(recipe, data=corpus.path, out=tmp_path / "run")
    assert kept_steps(run) == [3, 6, 9, 12, 13, 15, 18, 20]
    assert_same(run, undisturbed)


def test_every_so_often_a_checkpoint_is_kept_for_good(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, undisturbed: Run
) -> None:
    recipe = Recipe.load(recipe_file, "checkpoint={ every = '2 steps', keep = 1, keep_every = '25%' }")
    with crashing_at(13):
        train(recipe, data=corpus.path, out=tmp_path / "run")
    run = train(recipe, data=corpus.path, out=tmp_path / "run")
    assert kept_steps(run) == [5, 10, 15, 20]
    assert_same(run, undisturbed)


def test_the_checkpoint_of_the_lowest_validation_loss_is_kept(
    tmp_path: Path, recipe_file: Path, corpus: Corpus
) -> None:
    recipe = Recipe.load(
        recipe_file,
        "budget=40 steps",
        "optimizer.lr=1.0",  # so that the loss goes up again
        "schedule={ kind = 'constant', warmup = '36 steps' }",
        "evaluation.every=4 steps",
        "checkpoint={ every = '40 steps', keep = 1, keep_best = true }",
    )
    run = train(recipe, data=corpus.path, out=tmp_path / "run")
    best = min(run.metrics("validation"), key=lambda record: record["loss"])
    assert 4 < best["step"] < 40
    assert kept_steps(run) == [best["step"], 40]
    kept = open_checkpoint(run.path / "checkpoints" / f"step-{best['step']:08d}")
    assert kept.validation_loss == best["loss"]


@pytest.mark.parametrize(
    "overrides", [("evaluation.every=7 steps", "checkpoint.every=5 steps"), ("checkpoint.every=3 steps",)]
)
@pytest.mark.parametrize("stopped", [False, True], ids=["undisturbed", "stopped in the last evaluation"])
def test_the_last_checkpoint_knows_its_validation_loss(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, overrides: tuple[str, ...], stopped: bool
) -> None:
    """Though it was due, and written, before the end was evaluated."""
    recipe = Recipe.load(recipe_file, *overrides, "checkpoint.keep_best=true", "checkpoint.keep=1")
    if stopped:
        evaluations = 3 if len(overrides) == 2 else 2
        with stopping_in_pass(8 * evaluations - 1, training=False):
            assert not train(recipe, data=corpus.path, out=tmp_path / "run").finished
    run = train(recipe, data=corpus.path, out=tmp_path / "run")
    assert run.checkpoint.step == STEPS
    assert run.checkpoint.validation_loss == run.final_loss
    assert kept_steps(run) == [STEPS]  # the loss falls to the end


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
    streamed = [piece.text for piece in run.stream("day", tokens=12)]
    first = run.sample("day", tokens=12, count=2)
    assert [each.text for each in first] == [
        each.text for each in load(undisturbed.path).sample("day", tokens=12, count=2)
    ]
    assert len(first) == 2
    assert first[0].text.startswith("day")
    assert first[0].completion == "".join(streamed)
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
        ("budget=$20", r"\$20"),
    ],
)
def test_a_setting_that_does_not_work_yet_is_refused_by_name(
    tmp_path: Path, recipe_file: Path, corpus: Corpus, override: str, named: str
) -> None:
    with pytest.raises(UserError, match=named):
        train(Recipe.load(recipe_file, override), data=corpus.path, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_gpt_1b_star_trains_small_through_its_curriculum_and_a_ramp(tmp_path: Path, corpus: Corpus) -> None:
    """An eighth of its row lengths; 192 and 384 of 512 do not divide there either."""
    recipe = Recipe.load(
        "gpt-star-1b", "budget=15 steps", "data.window=64", "data.tokenizer=bytes", "batch.tokens=512",
        "batch.ramp={ start = 128, over = '40%' }", "model.layers=2", "model.heads=2", "model.dim=16",
        "model.context=64", "model.vocab_size=257", "optimizer={ kind = 'adamw', lr = 2e-2 }",
        "curriculum={ lengths = [16, 24, 32, 48, 64], stage = '2 steps' }", "evaluation.tokens=256",
        "execution.threads=1", "schedule.warmup=2 steps",
    )  # fmt: skip
    run = train(recipe, data=corpus.path, out=tmp_path / "run")
    lengths, tokens = ([record[key] for record in run.metrics()] for key in ("length", "batch_tokens"))
    assert lengths == [16, 16, 24, 24, 32, 32, 48, 48, *[64] * 7]
    assert tokens == [*[128] * 2, *[256] * 2, *[384] * 2, *[512] * 9]
    assert run.spent.tokens == sum(tokens)
    assert run.final_loss < run.metrics()[0]["loss"] - 1


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


def test_a_run_with_other_threads_leaves_those_of_the_next_as_they_were(
    recipe_file: Path, corpus: Corpus, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    before = torch.get_num_threads()
    run = train(Recipe.load(recipe_file, "execution.threads=2", "budget=4 steps"), data=corpus.path, out=tmp_path / "r")
    assert run.execution.threads == 2 != before
    assert torch.get_num_threads() == before
