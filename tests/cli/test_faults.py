"""What was found by trying to break the tool: each ends with one message, or does no harm."""

import json
import math
import os
import stat
import sys
from pathlib import Path

import pytest

from daybreak import Recipe, load, train
from daybreak.checkpoint import list_checkpoints
from daybreak.cli import main
from daybreak.data.shards import Corpus
from daybreak.errors import UserError
from daybreak.files import read_sealed, sha256_bytes, write_sealed

TINY = (
    "data.tokenizer=bytes",
    "data.window=16",
    "batch.tokens=64",
    "model.layers=1",
    "model.heads=2",
    "model.dim=16",
    "model.context=16",
    "model.vocab_size=257",
    "budget=4steps",
    "evaluation.tokens=100",
)


def run_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit code and standard error of a command, in this process."""
    monkeypatch.setattr(sys, "argv", ["daybreak", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    code = ended.value.code
    return (code if isinstance(code, int) else 0 if code is None else 1), capsys.readouterr().err


@pytest.fixture(scope="module")
def finished(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(Recipe.load("gpt2-tiny", *TINY), data=corpus.path, out=tmp_path_factory.mktemp("runs") / "run").path


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("evaluation.every=0", "evaluation.every"),
        ("checkpoint.every=0s", "checkpoint.every"),
        ("checkpoint.every=$5", "checkpoint.every"),
        ("samples.every=1flops", "samples.every"),
        ("schedule.hold=1h", "cannot be counted"),
        ("schedule={kind='wsd',warmup='70%',decay='60%'}", "do not fit"),
        ("optimizer.lr=1e999", "optimizer.lr"),
        ("optimizer.betas=[1,1]", "optimizer.betas"),
        ("model.initialisation.std=-1", "model.initialisation.std"),
        ("model.layers=1000000", "model.layers"),
        ("model.dim=1000000", "takes"),
        ("batch.tokens=2000000000", "takes"),
        ("batch.tokens=99999999999", "batch.tokens"),
        ("execution.threads=100000", "execution.threads"),
        ("execution.micro_batch=0", "execution.micro_batch"),
        ("learning_rate=1e-3", "optimizer.lr"),
        ("data.mixture=[{corpus='a'}]", "exclude each other"),
        ("model.dim=" + "9" * 5000, "model.dim"),
        ("model.dim=" + "[" * 3000, "model.dim"),
    ],
)
def test_a_setting_that_cannot_be_is_one_message_and_leaves_nothing(
    setting: str,
    said: str,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["train", "gpt2-tiny", *TINY, setting, "--data", str(corpus.path), "--out", str(tmp_path / "run")]
    if setting.startswith("data.mixture"):
        words[2:2] = [f"data.corpus={corpus.path}"]
        words = [word for word in words if word not in ("--data", str(corpus.path))]
    code, err = run_command(monkeypatch, capsys, *words)
    assert code == 2, err
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("tokenizer", ["bpe:99999999999", "bpe:" + "9" * 5000, "bpe:٣٠٠", "bpe:2000000", "BPE:300"])
def test_a_tokenizer_that_cannot_be_is_refused_before_anything_is_read(
    tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("prepare", "no-such-source", "--out", str(tmp_path / "c"), "--tokenizer", tokenizer)
    code, err = run_command(monkeypatch, capsys, *words)
    assert code == 2
    assert "bpe:" in err.lower()
    assert not (tmp_path / "c").exists()


def test_the_order_of_overrides_loses_none() -> None:
    either = Recipe.load("gpt2-tiny", "schedule.warmup=3%", "schedule.kind=wsd")
    other = Recipe.load("gpt2-tiny", "schedule.kind=wsd", "schedule.warmup=3%")
    assert either == other
    assert either.schedule.kind == "wsd"
    assert str(either.schedule.warmup) == "3%"


def test_a_table_cannot_be_put_into_a_value() -> None:
    with pytest.raises(UserError, match="optimizer was given a value"):
        Recipe.load("gpt2-tiny", "optimizer=3", "optimizer.lr=1e-3")


def test_a_sample_is_written_into_a_pipe_that_stays_one(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    code, _ = run_command(monkeypatch, capsys, "sample", str(finished), "day", "--tokens", "3", "--out", str(pipe))
    assert code == 0
    assert os.read(reader, 1000).startswith(b"day")
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("setting", ["checkpoint.keep_best=false", "checkpoint.keep_best=true"])
def test_a_run_that_diverged_ends_and_says_its_loss_is_no_number(setting: str, corpus: Corpus, tmp_path: Path) -> None:
    recipe = Recipe.load("gpt2-tiny", *TINY, "optimizer.lr=1e30", "schedule.warmup=1steps", setting)
    run = train(recipe, data=corpus.path, out=tmp_path / "run")
    assert run.finished
    assert run.final_loss is not None
    assert math.isnan(run.final_loss) or run.final_loss > 10
    json.loads((tmp_path / "run" / "finished.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize("line", [b"\xff\xfe", b"null", b"3", b"[]", b"{}", b'{"kind": "train"}', b"[" * 100_000])
def test_a_foreign_line_in_the_metrics_stops_no_resume(line: bytes, corpus: Corpus, tmp_path: Path) -> None:
    recipe = Recipe.load("gpt2-tiny", *TINY, "checkpoint.every=2steps")
    run = train(recipe, data=corpus.path, out=tmp_path / "run")
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(line + b"\n")
    (run.path / "finished.json").unlink()
    again = train(recipe, data=corpus.path, out=tmp_path / "run")
    assert again.finished
    assert [record["step"] for record in again.metrics()] == [1, 2, 3, 4]


@pytest.mark.parametrize("content", ["null", "[]", "3", "{}", "[" * 100_000])
@pytest.mark.parametrize("name", ["identity.json", "execution.json"])
def test_a_file_of_another_shape_in_a_run_is_named(name: str, content: str, corpus: Corpus, tmp_path: Path) -> None:
    recipe = Recipe.load("gpt2-tiny", *TINY, "checkpoint.every=2steps")
    path = train(recipe, data=corpus.path, out=tmp_path / "run").path
    (path / name).write_text(content)
    with pytest.raises(UserError):
        load(path)
    write_sealed(path / name, {})
    with pytest.raises(UserError):
        load(path)


@pytest.mark.parametrize("edit", [{"micro_batch": 0}, {"threads": 0}, {"device": "junk"}, {"loss_rows": -1}])
def test_an_execution_that_cannot_be_is_named(edit: dict[str, object], corpus: Corpus, tmp_path: Path) -> None:
    path = train(Recipe.load("gpt2-tiny", *TINY), data=corpus.path, out=tmp_path / "run").path
    write_sealed(path / "execution.json", read_sealed(path / "execution.json") | edit)
    with pytest.raises(UserError, match=r"execution\.json") as caught:
        load(path)
    assert "seal" not in str(caught.value)


def test_a_checkpoint_under_another_name_or_a_file_in_its_place_is_passed_over(corpus: Corpus, tmp_path: Path) -> None:
    recipe = Recipe.load("gpt2-tiny", *TINY, "checkpoint.every=2steps")
    path = train(recipe, data=corpus.path, out=tmp_path / "run").path
    older, newest = list_checkpoints(path / "checkpoints")
    newest.rename(newest.with_name("step-00000777"))
    (path / "checkpoints" / "step-00000888").write_text("no folder")
    assert load(path).checkpoint.path == older


def test_a_prompt_that_is_no_text_is_sampled_from(finished: Path) -> None:
    assert load(finished).sample("day\udcff", tokens=2)[0].prompt.startswith("day")


def test_an_id_beyond_the_tokenizer_is_found(corpus: Corpus, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "corpus"
    shutil.copytree(corpus.path, copy)
    shard = copy / "train-00000.bin"
    content = b"\xff\xff" + shard.read_bytes()[2:]
    shard.write_bytes(content)
    manifest = read_sealed(copy / "manifest.json")
    manifest["splits"]["train"]["shards"][0]["sha256"] = sha256_bytes(content)
    write_sealed(copy / "manifest.json", manifest)
    with pytest.raises(UserError, match="65,535"):
        Corpus.open(copy)
