"""Trackers: what they wrote, read back by other means, is what stands in metrics.jsonl, also after a crash."""

import json
import sqlite3
import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from daybreak import train
from daybreak.data.shards import Corpus
from daybreak.recipe import Recipe
from daybreak.run import Run
from daybreak.training.metrics import Metrics
from daybreak.training.trackers import scalars_of, texts_of
from daybreak.training.tracking import TrackingConfig, start_tracking

SETTINGS = (
    "budget=12 steps", "data.tokenizer=bytes", "data.window=16", "batch.tokens=64", "model.layers=1", "model.heads=2",
    "model.dim=16", "model.context=16", "model.vocab_size=257", "evaluation={tokens=64, every='3 steps'}",
    "samples={every='4 steps', tokens=4}", "checkpoint={every='4 steps', keep=10}", "execution.threads=1",
    "tracking={kinds='tensorboard, trackio, wandb', project='tests', every='1 steps'}",
)  # fmt: skip
CRASHED_AT = 7
SECONDS = ("elapsed_seconds", "milliseconds", "tokens_per_second", "mfu", "seconds")
MEASURED_ANEW = {f"{kind}/{name}" for kind in ("train", "validation") for name in SECONDS}

Curves = Mapping[str, list[tuple[int, float]]]


@pytest.fixture(scope="module")
def run(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Twelve steps in two sittings: the first crashed behind the seventh, and its last three were done again."""
    folder = tmp_path_factory.mktemp("tracked")
    recipe, record_step = Recipe.load("gpt2-tiny", *SETTINGS), Metrics.step

    def crash(self: Metrics, record: dict[str, Any]) -> None:
        record_step(self, record)
        if record["step"] == CRASHED_AT:
            raise RuntimeError("a crash")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder / "home"))
        for name in ("WANDB_MODE", "WANDB_API_KEY", "TRACKIO_DIR", "NETRC"):
            patch.delenv(name, raising=False)
        patch.setattr(Metrics, "step", crash)
        with pytest.raises(RuntimeError, match="a crash"):
            train(recipe, data=corpus.path, out=folder / "mine")
        patch.setattr(Metrics, "step", record_step)
        yield train(recipe, data=corpus.path, out=folder / "mine")
    assert not (folder / "home").exists()  # trackers write into the run's folder alone


@pytest.fixture(scope="module")
def measured(run: Run) -> Curves:
    """The curves that metrics.jsonl has."""
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for kind in ("train", "validation", "layers"):
        for record in run.metrics(kind):
            for name, number in scalars_of(record).items():
                curves[name].append((record["step"], number))
    assert [step for step, _ in curves["train/loss"]] == list(range(1, 13))
    assert {"validation/loss", "layers/update_size/blocks.0", "layers/largest_logit/head"} <= curves.keys()
    return curves


def test_tensorboard_shows_one_curve_of_what_was_measured(run: Run, measured: Curves) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    assert set(events.Tags()["scalars"]) == set(measured)
    for name, curve in measured.items():
        shown = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in shown] == [step for step, _ in curve]
        assert [number for _, number in shown] == pytest.approx([number for _, number in curve], rel=1e-6)
    texts = [(event.step, event.tensor_proto.string_val[0].decode()) for event in events.Tensors("sample")]
    assert texts == [(record["step"], record["text"]) for record in run.metrics("sample")]
    assert '"lr": 0.003' in events.Tensors("recipe")[0].tensor_proto.string_val[0].decode()


def test_trackio_has_one_curve_of_what_was_measured(run: Run, measured: Curves) -> None:
    with closing(sqlite3.connect(run.path / "trackio" / "tests.db")) as connection:
        rows = connection.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
        ((identity,),) = connection.execute("SELECT DISTINCT run_id FROM metrics").fetchall()
        configs = connection.execute("SELECT run_name, config FROM configs").fetchall()
    assert ({name for name, _, _ in rows}, identity) == ({"mine"}, (run.path / "tracking-id").read_text())
    assert curves_of((step, json.loads(metrics)) for _, step, metrics in rows) == (measured, samples(run))
    ((name, config),) = configs
    assert name == "mine"
    assert json.loads(config)["model"] == run.recipe.model.model_dump(mode="json")


def test_wandb_has_one_run_of_what_was_measured(run: Run, measured: Curves) -> None:
    from wandb.proto.wandb_internal_pb2 import Record

    sent: list[tuple[int, dict[str, Any]]] = []
    identities = set()
    files = sorted((run.path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2
    for file in files:
        for content in log_records(file.read_bytes()):
            record = Record.FromString(content)
            if record.HasField("run"):
                identities.add((record.run.run_id, record.run.project, record.run.display_name))
                assert {entry.key for entry in record.run.config.update} >= {"model", "optimizer", "data"}
            if record.HasField("history"):
                items = {"".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
                step = record.history.step.num
                sent.append((step, {key: json.loads(text) for key, text in items.items() if key[0] != "_"}))
    ((identity, project, name),) = identities
    assert (identity, project, name) == ((run.path / "tracking-id").read_text(), "tests", "mine")
    curves, texts = curves_of(sent)
    assert texts == samples(run)
    assert curves.keys() == measured.keys()
    for curve_name in curves.keys() - MEASURED_ANEW:  # the seconds of steps that were done again are the first ones
        assert dict(curves[curve_name]) == dict(measured[curve_name])
    assert [step for step, _ in curves["train/loss"]] == [1, 2, 3, 4, 5, 6, 7, 7, 8, 9, 10, 11, 12]


def curves_of(rows: Any) -> tuple[Curves, list[tuple[int, str]]]:
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    texts = []
    for step, metrics in rows:
        for name, value in metrics.items():
            if isinstance(value, str):
                texts.append((step, value))
            else:
                curves[name].append((step, value))
    return curves, texts


def samples(run: Run) -> list[tuple[int, str]]:
    return [(record["step"], record["text"]) for record in run.metrics("sample")]


def log_records(content: bytes) -> Iterator[bytes]:
    """Records of a log in LevelDB's format (its doc/log_format.md), behind a header of seven bytes."""
    place, parts = 7, b""
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def test_no_folder_of_this_machine_is_sent(run: Run) -> None:
    folder = str(run.path.parent).encode()
    files = [path for kind in ("tensorboard", "trackio") for path in (run.path / kind).rglob("*") if path.is_file()]
    files += (run.path / "wandb").glob("offline-run-*/*.wandb")
    assert len(files) >= 5
    assert [path for path in files if folder in path.read_bytes()] == []
    corpus = Path(str(run.recipe.data.corpus))
    assert corpus.is_absolute()
    assert [path for path in files if str(corpus).encode() in path.read_bytes()] == []


def test_numbers_of_a_record_have_the_names_of_where_they_stand() -> None:
    tasks = {
        "kind": "tasks", "step": 3, "attempt": 1, "results": {"hellaswag": {"acc": 0.25, "n": 8}}, "seconds": 1.5
    }  # fmt: skip
    assert scalars_of(tasks) == {"tasks/hellaswag/acc": 0.25, "tasks/hellaswag/n": 8, "tasks/seconds": 1.5}
    validation = {"kind": "validation", "step": 3, "loss": None, "sources": {"a": 1.5}, "crc32": "0", "good": True}
    assert scalars_of(validation) == {"validation/sources/a": 1.5}
    assert texts_of(validation) == {}
    assert texts_of({"kind": "sample", "step": 1, "text": "word"}) == {"sample": "word"}


def test_runs_of_one_name_share_a_folder_of_trackio_and_stay_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "shared"))
    for parent in ("a", "b", "a"):  # the third goes on with the first, and does its second step again
        run = tmp_path / parent / "run"
        run.mkdir(parents=True, exist_ok=True)
        tracked = 2 if (run / "tracking-id").exists() else 0
        config = TrackingConfig(kinds=("trackio",))
        with Metrics(
            run / "metrics.jsonl", 1, start_tracking(config, run, {}, behind=tracked // 2, tracked=tracked)
        ) as metrics:
            for step in range(1 + tracked // 2, 3):
                metrics.event("validation", {"step": step, "loss": 1.0 + tracked}, "")
    with closing(sqlite3.connect(tmp_path / "shared" / "daybreak.db")) as connection:
        rows = connection.execute("SELECT run_id, step, metrics FROM metrics ORDER BY run_id, step").fetchall()
    a, b = ((tmp_path / parent / "run" / "tracking-id").read_text() for parent in ("a", "b"))
    found = {(run, step): json.loads(metrics)["validation/loss"] for run, step, metrics in rows}
    assert found == {(a, 1): 1.0, (a, 2): 3.0, (b, 1): 1.0, (b, 2): 1.0}
    assert len(rows) == 4
