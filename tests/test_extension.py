"""Extensions: a run that goes on from another's plateau is, bit for bit, the run of the larger budget."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from daybreak import extend, load, train
from daybreak.checkpoint import list_checkpoints, open_checkpoint
from daybreak.data.shards import Corpus
from daybreak.errors import UserError
from daybreak.recipe import Recipe
from daybreak.run import Run
from daybreak.training.metrics import Metrics
from daybreak.training.state import State

TINY = (
    "model.layers=1",
    "model.heads=2",
    "model.dim=16",
    "model.context=16",
    "model.vocab_size=320",
    "data.window=16",
    "data.tokenizer=bytes",
    "batch.tokens=128",
    "evaluation.tokens=256",
    "evaluation.every=never",
    "checkpoint.every=never",
    "execution.threads=1",
    "execution.micro_batch=2",
    "schedule.kind=wsd",
    "schedule.warmup=2 steps",
    "schedule.decay=50%",
)


def recipe(*overrides: str) -> Recipe:
    return Recipe.load("gpt2-tiny", *TINY, *overrides)


@pytest.fixture(scope="module")
def short(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(recipe("budget=12 steps"), data=corpus.path, out=tmp_path_factory.mktemp("short") / "run")


def same_weights(one: Run, other: Run) -> bool:
    mine, theirs = one.checkpoint.weights(), other.checkpoint.weights()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@contextmanager
def stopped_at(step: int) -> Iterator[None]:
    """Runs are asked to stop behind that step."""
    record_step = Metrics.step

    def record_and_stop(self: Metrics, record: dict[str, Any]) -> None:
        record_step(self, record)
        if record["step"] == step:
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Metrics, "step", record_and_stop)
        yield


def test_the_last_checkpoint_of_the_plateau_is_kept(short: Run) -> None:
    first, last = list_checkpoints(short.path / "checkpoints")
    rates = {record["step"]: record["lr"] for record in short.metrics()}
    kept = open_checkpoint(first)
    assert kept.pinned
    assert rates[kept.step] == rates[kept.step - 1] == max(rates.values()) > rates[kept.step + 1]
    assert State.read(kept).spent.before_decay
    assert not State.read(open_checkpoint(last)).spent.before_decay


@pytest.mark.parametrize("budget", ["24 steps", "13 steps", "3000 tokens"])
def test_it_is_the_run_of_the_larger_budget_bit_for_bit(
    short: Run, corpus: Corpus, tmp_path: Path, budget: str
) -> None:
    whole = train(recipe(f"budget={budget}"), data=corpus.path, out=tmp_path / "whole")
    extended = extend(short.path, f"budget={budget}", out=tmp_path / "extended")
    assert extended.finished
    assert extended.spent.steps == whole.spent.steps > 12
    assert same_weights(extended, whole)
    trained = [(record["step"], record["loss"], record["lr"]) for record in extended.metrics()]
    assert trained == [(record["step"], record["loss"], record["lr"]) for record in whole.metrics()]


def test_the_plateau_is_not_trained_again(short: Run, tmp_path: Path) -> None:
    extended = extend(short.path, "budget=24 steps", out=tmp_path / "extended")
    (event,) = extended.metrics("extension")
    assert event["step"] == open_checkpoint(list_checkpoints(short.path / "checkpoints")[0]).step == 7
    own = [record["step"] for record in extended.metrics() if record["attempt"] == 2]
    assert own == list(range(event["step"] + 1, 25))


def test_it_can_be_extended_again_and_goes_on_after_a_stop(short: Run, corpus: Corpus, tmp_path: Path) -> None:
    extend(short.path, "budget=20 steps", out=tmp_path / "one")
    with stopped_at(30):
        assert not extend(tmp_path / "one", "budget=60 steps", out=tmp_path / "two").finished
    again = extend(tmp_path / "one", "budget=60 steps", out=tmp_path / "two")
    whole = train(recipe("budget=60 steps"), data=corpus.path, out=tmp_path / "whole")
    assert again.finished
    assert same_weights(again, whole)


def test_a_second_epoch_is_read_in_another_order(short: Run, corpus: Corpus, tmp_path: Path) -> None:
    epoch = (len(corpus.stream("train")) - 1) // 16 // 8  # in steps
    extended = extend(short.path, f"budget={epoch + 20} steps", out=tmp_path / "extended")
    whole = train(recipe(f"budget={epoch + 20} steps"), data=corpus.path, out=tmp_path / "whole")
    assert extended.spent.windows > (len(corpus.stream("train")) - 1) // 16
    assert same_weights(extended, whole)


def test_phases_stay_where_they_were(corpus: Corpus, tmp_path: Path) -> None:
    grows = ("curriculum.lengths=[8,16]", "curriculum.stage=25%", "batch.ramp.start=32", "batch.ramp.over=20%")
    shares = ("schedule.warmup=10%", *grows)
    train(recipe("budget=2560 tokens", *shares), data=corpus.path, out=tmp_path / "short")
    extended = extend(tmp_path / "short", "budget=10240 tokens", out=tmp_path / "extended")
    records = extended.metrics()
    assert extended.finished
    for grown in ("length", "batch_tokens"):
        sizes = [record[grown] for record in records]
        assert sizes == sorted(sizes), grown
    peak = max(record["lr"] for record in records)
    reached = next(index for index, record in enumerate(records) if record["lr"] == peak)
    fallen = next(index for index, record in enumerate(records) if index > reached and record["lr"] < peak)
    assert records[fallen]["progress"] > 0.5
    assert str(extended.recipe.schedule.warmup) == "2.5%"
    quarters = ("curriculum.lengths=[8,16]", "curriculum.stage=6.25%", "batch.ramp.start=32", "batch.ramp.over=5%")
    asked = recipe("budget=10240 tokens", "schedule.warmup=2.5%", *quarters)
    whole = train(asked, data=corpus.path, out=tmp_path / "whole")
    assert [record["length"] for record in whole.metrics()] == [record["length"] for record in records]
    assert same_weights(whole, extended)


def test_a_budget_in_time_ends_decayed_and_counts_what_was_spent(corpus: Corpus, tmp_path: Path) -> None:
    timed = recipe("budget=2s", "counts=train", "execution.micro_batch=8")
    first = train(timed, data=corpus.path, out=tmp_path / "short")
    extended = extend(tmp_path / "short", "budget=4s", out=tmp_path / "extended")
    assert extended.spent.train_seconds == pytest.approx(4.0, abs=0.5)
    assert extended.metrics()[-1]["lr"] < 0.1 * max(record["lr"] for record in extended.metrics())
    began = extended.metrics("extension")[0]["step"]
    assert began < first.spent.steps
    old, new = ({record["step"]: record for record in run.metrics()} for run in (first, extended))
    # Half of what it was, and from there on without a halt.
    assert new[began]["progress"] == pytest.approx(old[began]["progress"] / 2, rel=0.1)
    assert new[began + 1]["progress"] == pytest.approx(new[began]["progress"] + new[began]["progress_share"], rel=0.05)
    assert new[began + 5]["progress"] > new[began + 1]["progress"]


def test_an_unfinished_run_is_extended_from_where_it_is(short: Run, corpus: Corpus, tmp_path: Path) -> None:
    stopped = train(recipe("budget=100000 steps"), data=corpus.path, out=tmp_path / "stopped", stop_after="1s")
    assert not stopped.finished
    extended = extend(tmp_path / "stopped", "budget=200000 steps", out=tmp_path / "extended", stop_after="1s")
    first = next(record for record in extended.metrics() if record["attempt"] == 2)
    assert first["step"] == stopped.spent.steps + 1
    assert first["progress"] == pytest.approx(stopped.spent.progress / 2)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("budget=12 steps",), "larger budget than its 12 steps"),
        (("budget=8 steps",), "is no more than the 12 steps"),
        ((), "larger budget than its 12 steps"),
        (("budget=24 steps", "optimizer.lr=1"), "optimizer.lr"),
        (("budget=24 steps", "model.layers=2"), "model.layers"),
    ],
)
def test_what_is_no_extension_is_refused(short: Run, tmp_path: Path, overrides: tuple[str, ...], says: str) -> None:
    with pytest.raises(UserError, match=says):
        extend(short.path, *overrides, out=tmp_path / "extended")
    assert not (tmp_path / "extended").exists()


def test_a_time_that_another_start_would_use_up_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    """Its learning rate would jump where the extension begins."""
    run = train(recipe("budget=4s"), data=corpus.path, out=tmp_path / "run", started=time.monotonic() - 2)
    assert run.finished
    with pytest.raises(UserError, match=r"no more than the 4s that .* had, without the time that another start takes"):
        extend(run.path, "budget=4.5s", out=tmp_path / "extended")
    assert not (tmp_path / "extended").exists()


def test_an_empty_folder_is_taken(short: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert extend(short.path, "budget=16 steps", out=tmp_path / "empty").finished


def test_a_mistake_in_stop_after_is_said_before_anything_is_written(short: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stop_after"):
        extend(short.path, "budget=24 steps", out=tmp_path / "extended", stop_after="3 steps")
    assert not (tmp_path / "extended").exists()


def test_a_cosine_is_refused_with_the_reason(corpus: Corpus, tmp_path: Path) -> None:
    cosine = Recipe.load("gpt2-tiny", *TINY[:-3], "budget=6 steps", "schedule.warmup=2 steps")
    train(cosine, data=corpus.path, out=tmp_path / "cosine")
    with pytest.raises(UserError, match="cosine, lowers the learning rate by the share of the budget"):
        extend(tmp_path / "cosine", "budget=12 steps")


def test_another_run_in_the_folder_is_left_alone(short: Run, corpus: Corpus, tmp_path: Path) -> None:
    train(recipe("budget=6 steps", "seed=7"), data=corpus.path, out=tmp_path / "other")
    with pytest.raises(UserError, match="holds another run"):
        extend(short.path, "budget=24 steps", out=tmp_path / "other")
    (tmp_path / "something").mkdir()
    (tmp_path / "something" / "mine").touch()
    with pytest.raises(UserError, match="is no extension"):
        extend(short.path, "budget=24 steps", out=tmp_path / "something")


def test_a_rate_that_was_lowered_once_is_no_plateau(corpus: Corpus, tmp_path: Path) -> None:
    """A run that began with a cosine and goes on with a plateau has nothing to be extended from."""
    cosine = recipe("budget=20 steps", "schedule={kind='cosine', warmup='10%'}", "checkpoint.every=10 steps")
    with stopped_at(10):
        assert not train(cosine, data=corpus.path, out=tmp_path / "run").finished
    plateau = recipe("budget=20 steps", "schedule={kind='wsd', warmup='10%', decay='20%'}")
    train(plateau, data=corpus.path, out=tmp_path / "run", accept_changes=True)
    with pytest.raises(UserError, match="no checkpoint from before its learning rate fell"):
        extend(tmp_path / "run", "budget=40 steps")


def test_the_new_folder_lies_beside_the_old(short: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(short.path)
    assert extend(".", "budget=16 steps").path == short.path.with_name(f"{short.path.name}-16-steps")


def test_ranks_begin_no_extension(short: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="begin an extension with one process"):
        extend(short.path, "budget=24 steps")


def test_money_is_time_at_a_price(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"budget = \$20 needs price"):
        recipe("budget=$20")
    assert recipe("budget=$20", "price=0.4").budget_seconds == 3600 * 20 / 0.4
    run = train(recipe("budget=$0.001", "price=1.8", "counts=train"), data=corpus.path, out=tmp_path / "run")
    assert run.finished
    assert run.spent.train_seconds == pytest.approx(2.0, abs=0.5)
    assert math.isfinite(load(tmp_path / "run").final_loss or math.nan)
