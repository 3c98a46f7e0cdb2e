"""Runs over mixtures: every window as often as asked, stopped and gone on bit for bit, measured corpus by corpus."""

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from daybreak import Recipe, Run, load, train
from daybreak.cli.evaluate import evaluate
from daybreak.data.batches import Batches, Rows
from daybreak.data.prepare import prepare
from daybreak.data.shards import Corpus
from daybreak.errors import UserError
from daybreak.extension import extend
from daybreak.files import read_sealed
from daybreak.planning import here as here_module
from daybreak.planning.course import Pace
from daybreak.planning.plan import plan
from daybreak.planning.rehearsal import Rehearsal
from daybreak.training.metrics import Metrics
from daybreak.training.signals import StopRequest
from daybreak.verify import verify

# Characters of each, nine tenths of them to train on, and the windows of 16 that those are.
SOURCES = {
    "openwebtext": (540, 30),
    "bookcorpus2": (110, 6),
    "books3": (360, 20),
    "philpapers": (78, 4),
    "openwebtext2": (185, 10),
}
EPOCHS = {"openwebtext": 1.0, "bookcorpus2": 1.0, "books3": 0.5, "philpapers": 1.0, "openwebtext2": 1.0}
A_PASS = 30 + 6 + 10 + 4 + 10
TINY = (
    "data.window=16", "data.tokenizer=bytes", "batch.tokens=64", "model.layers=1", "model.heads=2", "model.dim=16",
    "model.context=16", "model.vocab_size=257", "model.dropout=0.1", "schedule.warmup=2 steps", "optimizer.lr=1e-2",
    "evaluation.every=50%", "evaluation.tokens=64", "checkpoint.every=100%", "execution.precision=fp32",
    "execution.threads=1", "execution.micro_batch=2", "execution.device=cpu",
)  # fmt: skip
GROWING = (
    "curriculum={ lengths = [6, 8, 16], stage = '3 steps' }",
    "batch.ramp={ start = 32, over = '50%' }",
    "schedule.warmup=64 tokens",
)


def make_text(name: str, characters: int) -> str:
    return "".join(random.Random(name).choices("abcdefghijklmnopqrstuvwxyz ", k=characters))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stand-ins for the five sources of WebText++."""
    path = tmp_path_factory.mktemp("webtext")
    for name, (characters, _) in SOURCES.items():
        text = path / f"{name}.txt"
        text.write_text(make_text(name, characters))
        prepare([str(text)], path / name, tokenizer="bytes")
    return path


@cache
def known_windows() -> dict[tuple[int, ...], tuple[str, int]]:
    """Each window of the sources with its successor, cut from their text by hand: (source, its number)."""
    return {
        (256, *text.encode())[16 * number : 16 * number + 17]: (name, number)
        for name, (characters, count) in SOURCES.items()
        for text in [make_text(name, characters)[: characters * 9 // 10]]
        for number in range(count)
    }


@dataclass
class Seen:
    """What the steps of a run were of: by its place in the run, each window as (source, its number)."""

    windows: dict[int, tuple[str, int]] = field(default_factory=dict)

    def note(self, place: int, rows: Rows) -> None:
        for index, (inputs, targets) in enumerate(zip(rows.inputs.tolist(), rows.targets.tolist(), strict=True)):
            self.windows[place + index] = known_windows()[(*inputs, targets[-1])]

    def a_pass(self, number: int) -> list[tuple[str, int]]:
        return [self.windows[place] for place in range(number * A_PASS, (number + 1) * A_PASS)]


@contextmanager
def watched() -> Iterator[Seen]:
    seen, step = Seen(), Batches.step

    def step_and_note(self: Batches, place: int, **size: Any) -> Iterator[Rows]:
        first = place
        for rows in step(self, place, **size):
            seen.note(first, rows)
            first += len(rows.inputs)
            yield rows

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batches, "step", step_and_note)
        yield seen


def numbers(windows: list[tuple[str, int]], name: str) -> list[int]:
    return [number for source, number in windows if source == name]


def webtext(*overrides: str) -> Recipe:
    return Recipe.load("webtext++", *TINY, *overrides)


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Seen]:
    """Exactly one pass, and the windows that it read."""
    with watched() as seen:
        run = train(webtext(), data=folder, out=tmp_path_factory.mktemp("finished") / "run")
    return run, seen


def test_webtext_plus_plus_states_the_epochs_of_its_sources_once() -> None:
    for name in ("webtext++", "gpt-star-127m", "gpt-star-303m", "gpt-star-1b"):
        mixture = Recipe.load(name).data.mixture
        assert {source.corpus: source.epochs for source in mixture} == EPOCHS


def test_one_pass_of_webtext_plus_plus_reads_every_window_as_often_as_it_says(finished: tuple[Run, Seen]) -> None:
    run, seen = finished
    assert run.finished
    assert (run.spent.windows, run.spent.steps, run.spent.tokens) == (A_PASS, 15, 16 * A_PASS)
    assert sorted(seen.windows) == list(range(A_PASS))
    for name, (_, count) in SOURCES.items():
        read = numbers(seen.a_pass(0), name)
        assert len(read) == round(EPOCHS[name] * count)
        assert len(set(read)) == len(read)
    assert [source for source, _ in seen.a_pass(0)][:30] != ["openwebtext"] * 30


def test_a_second_pass_reads_the_other_half_of_books3_and_all_else_in_another_order(
    folder: Path, finished: tuple[Run, Seen], tmp_path: Path
) -> None:
    with watched() as seen:
        run = train(webtext("budget=2 epochs"), data=folder, out=tmp_path / "run")
    assert (run.spent.windows, run.spent.steps) == (2 * A_PASS, 30)
    first, second = seen.a_pass(0), seen.a_pass(1)
    assert first == finished[1].a_pass(0)
    assert Counter(numbers(first, "books3") + numbers(second, "books3")) == dict.fromkeys(range(20), 1)
    for name, (_, count) in SOURCES.items():
        if name != "books3":
            assert sorted(numbers(second, name)) == list(range(count))
    assert numbers(first, "openwebtext") != numbers(second, "openwebtext")


def test_the_corpora_may_lie_where_one_works(
    folder: Path, finished: tuple[Run, Seen], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    run = train(webtext(), out=tmp_path / "run")
    assert course(run) == course(finished[0])
    assert run.recipe.data.places == tuple(str(folder.resolve() / name) for name in SOURCES)


def test_a_mixture_that_is_not_here_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^openwebtext, of data\.mixture, is not a corpus.*--data FOLDER"):
        train(webtext(), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def bits(run: Run) -> list[bytes]:
    return [(run.checkpoint.path / f"{part}.safetensors").read_bytes() for part in ("model", "optimizer")]


def course(run: Run) -> list[Any]:
    kept = ("step", "tokens", "length", "loss", "lr", "gradient_norm", "progress")
    measured = [(record["step"], record["loss"], record["sources"]) for record in run.metrics("validation")]
    return [tuple(record[key] for key in kept) for record in run.metrics()] + measured


@contextmanager
def stopping_behind(step: int) -> Iterator[None]:
    """As if Ctrl-C was pressed once a step was done."""
    stop, record_step = StopRequest(), Metrics.step

    @contextmanager
    def on_signals(*_: object) -> Iterator[StopRequest]:
        yield stop

    def record_and_stop(self: Metrics, record: dict[str, Any]) -> None:
        record_step(self, record)
        stop.requested = record["step"] == step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daybreak.run.stop_on_signals", on_signals)
        patch.setattr(Metrics, "step", record_and_stop)
        yield


@pytest.mark.parametrize("overrides", [(), GROWING], ids=["plain", "growing"])
def test_a_run_over_a_mixture_goes_on_bit_for_bit(overrides: tuple[str, ...], folder: Path, tmp_path: Path) -> None:
    """Across the end of a pass, which is that of the fifteenth step, or inside a step where they grow."""
    recipe = webtext("budget=2 epochs", *overrides)
    undisturbed = train(recipe, data=folder, out=tmp_path / "undisturbed")
    for step in (1, 14, 15, 23):
        with stopping_behind(step):
            stopped = train(recipe, data=folder, out=tmp_path / "run")
        assert (stopped.finished, stopped.spent.steps) == (False, step)
    run = train(recipe, data=folder, out=tmp_path / "run")
    assert run.finished
    assert course(run) == course(undisturbed)
    assert bits(run) == bits(undisturbed)


def test_a_micro_batch_of_another_size_makes_the_same_steps(
    folder: Path, finished: tuple[Run, Seen], tmp_path: Path
) -> None:
    with watched() as seen:
        run = train(webtext("execution.micro_batch=4"), data=folder, out=tmp_path / "run")
    assert seen.windows == finished[1].windows
    losses = [record["loss"] for record in finished[0].metrics()]
    assert [record["loss"] for record in run.metrics()] == pytest.approx(losses, rel=1e-5)


def test_the_validation_loss_of_a_mixture_is_that_of_all_its_tokens_and_known_of_each_source(
    folder: Path, finished: tuple[Run, Seen], capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = finished
    whole = run.evaluate()
    each = {name: run.evaluate(folder / name) for name in SOURCES}
    assert whole.sources == {name: loss.loss for name, loss in each.items()}
    assert whole.tokens == sum(loss.tokens for loss in each.values())
    assert whole.tokens == sum(Corpus.open(folder / name).validation.tokens - 1 for name in SOURCES)
    assert whole.loss * whole.tokens == pytest.approx(sum(loss.loss * loss.tokens for loss in each.values()))
    assert whole.bytes == sum(loss.bytes for loss in each.values())
    for record in run.metrics("validation"):
        assert list(record["sources"]) == list(SOURCES)
    assert run.final_loss == run.metrics("validation")[-1]["loss"]
    capsys.readouterr()
    evaluate(str(run.path))
    assert f"of books3       {whole.sources['books3']:.4f} nats a token" in capsys.readouterr().out


def test_a_run_tells_which_corpora_it_read(folder: Path, finished: tuple[Run, Seen], tmp_path: Path) -> None:
    run, _ = finished
    sources = read_sealed(run.path / "identity.json")["mixture"]
    assert [(source["corpus"], source["windows"], source["of"]) for source in sources] == [
        (name, round(EPOCHS[name] * count), count) for name, (_, count) in SOURCES.items()
    ]
    assert [source["identity"] for source in sources] == [Corpus.open(folder / name).identity for name in SOURCES]
    assert all(checked.problem is None for checked in verify(run.path))


@pytest.fixture(scope="module")
def half_done(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("half-done") / "run"
    with stopping_behind(7):
        train(webtext(), data=folder, out=path)
    return path


def test_a_mixture_that_was_moved_is_the_same(
    folder: Path, half_done: Path, finished: tuple[Run, Seen], tmp_path: Path
) -> None:
    shutil.copytree(half_done, tmp_path / "run")
    shutil.copytree(folder, tmp_path / "moved")
    run = train(webtext(), data=tmp_path / "moved", out=tmp_path / "run")
    assert course(run) == course(finished[0])
    assert bits(run) == bits(finished[0])
    assert not run.metrics("changes")


def test_another_mixture_for_a_run_is_refused_with_what_differs(folder: Path, half_done: Path, tmp_path: Path) -> None:
    shutil.copytree(half_done, tmp_path / "run")
    whole = [{"corpus": name} for name in SOURCES]
    content = webtext().model_dump(mode="json")
    content["data"]["mixture"] = whole
    with pytest.raises(UserError) as refused:
        train(Recipe.model_validate(content), data=folder, out=tmp_path / "run")
    assert str(refused.value).splitlines()[1:] == ["  data.mixture.3.epochs: 1.0 here, 0.5 there"]

    content["data"]["mixture"] = whole[:4]
    with pytest.raises(UserError, match=r"data\.mixture\.5\.corpus: None here"):
        train(Recipe.model_validate(content), data=folder, out=tmp_path / "run")
    with pytest.raises(UserError, match=r"data\.corpus"):
        train(webtext(), data=folder / "books3", out=tmp_path / "run")


def test_another_version_of_one_corpus_is_named_and_may_be_accepted(
    folder: Path, half_done: Path, tmp_path: Path
) -> None:
    shutil.copytree(half_done, tmp_path / "run")
    shutil.copytree(folder, tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / "books3")
    (tmp_path / "books3.txt").write_text(make_text("another", 300))
    prepare([str(tmp_path / "books3.txt")], tmp_path / "other" / "books3", tokenizer="bytes")
    with pytest.raises(UserError) as refused:
        train(webtext(), data=tmp_path / "other", out=tmp_path / "run")
    lines = str(refused.value).splitlines()[1:]
    assert lines == [f"  data: another version of the corpus, {tmp_path / 'other' / 'books3'} here"]
    run = train(webtext(), data=tmp_path / "other", out=tmp_path / "run", accept_changes=True)
    assert run.finished
    assert load(run.path).metrics("changes")[0]["settings"] == [lines[0].strip()]


def test_a_run_over_a_mixture_is_extended(folder: Path, tmp_path: Path) -> None:
    """A schedule with a plateau; the longer run from its start is what the extension comes to."""
    overrides = ("schedule={ kind = 'wsd', warmup = '2 steps', decay = '20%' }",)
    train(webtext(*overrides), data=folder, out=tmp_path / "run")
    shutil.copytree(folder, tmp_path / "moved")
    longer = extend(tmp_path / "run", "budget=2 epochs", data=tmp_path / "moved", out=tmp_path / "longer")
    whole = train(webtext("budget=2 epochs", *overrides), data=folder, out=tmp_path / "whole")
    assert bits(longer) == bits(whole)


def test_a_plan_counts_passes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rehearsed: list[Recipe] = []

    def rehearse(recipe: Recipe) -> Rehearsal:
        rehearsed.append(recipe)
        pace = Pace(start=1.0, step=0.5, evaluation=0.1, sample=0.0, save=0.1)
        return Rehearsal("cpu", "fp32", 2, pace, peak_bytes=10**9, windows=0, checkpoint_bytes=10**6)

    monkeypatch.setattr(here_module, "rehearse", rehearse)
    found = plan(webtext("budget=3 epochs"), data=folder)
    assert found.value("steps") == 45
    assert found.value("tokens") == 3 * 16 * A_PASS
    assert found.value("epochs") == 3
    assert rehearsed[0].data.places == tuple(str(folder.resolve() / name) for name in SOURCES)
    (warning,) = [each for each in found.warnings if each.startswith("data")]
    assert "the mixture is read 3.0 times" in warning
    # A shipped mixture that is not here has no size, and its speed is that on random text.
    monkeypatch.chdir(folder.parent)
    assert "epochs" not in [figure.name for figure in plan(webtext("budget=30 steps")).figures]
    with pytest.raises(UserError, match="give --data"):
        plan(webtext())
    with pytest.raises(UserError, match=r"of data\.mixture, is not a corpus"):
        plan(webtext(), data=folder.parent)
