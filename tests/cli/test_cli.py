"""The command line: each verb on a small corpus, each mistake one message, and Ctrl-C in a real process."""

import gzip
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file

from daybreak import cli, load
from daybreak.data.shards import Corpus

VERBS = ["demo", "prepare", "train", "evaluate", "sample", "recipes", "doctor", "verify", "import", "inspect"]
RECIPE = """
budget = "6 steps"

[data]
window = 16

[batch]
tokens = 64

[model]
layers = 1
heads = 2
dim = 16
context = 16
vocab_size = 320

[optimizer]
lr = 1e-2

[evaluation]
every = "50%"
tokens = 64

[checkpoint]
every = "3 steps"

[execution]
micro_batch = 2
threads = 1
"""


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def daybreak(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line in this process."""

    def run(*words: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["daybreak", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return run


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, recipe: Path, corpus: Corpus) -> Path:
    """A finished run, made by the command line."""
    out = tmp_path_factory.mktemp("run") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["daybreak", "train", str(recipe), "--data", str(corpus.path), "--out", str(out)])
        try:
            cli.main()
        except SystemExit as end:
            assert not end.code  # noqa: PT017
    return out


def snapshot(folder: Path) -> dict[str, bytes]:
    """All files below a folder with their content, and all folders."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def assert_refused(outcome: Outcome, *named: str | Path) -> None:
    """Exit code 2 and one message that names what is wrong."""
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.count("error: ") == 1
    assert "Traceback" not in outcome.err
    message = outcome.err[outcome.err.index("error: ") :]
    for each in named:
        assert str(each) in message


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_help_of_every_verb_comes_without_torch() -> None:
    script = f"""
import contextlib, io, sys
from daybreak.cli import main
for words in [["--help"], *([verb, "--help"] for verb in {VERBS})]:
    sys.argv = ["daybreak", *words]
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main()
    assert "Usage" in shown.getvalue(), words
print([name for name in ("torch", "numpy", "tiktoken", "tokenizers") if name in sys.modules])
"""
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert made.stdout.strip() == "[]"


def test_prepare_makes_a_corpus_and_describes_it(tmp_path: Path, daybreak: Command) -> None:
    with gzip.open(tmp_path / "documents.jsonl.gz", "wt") as file:
        for number in range(50):
            file.write(json.dumps({"text": f"document {number} of fifty " * 5}) + "\n")
    (tmp_path / "more.txt").write_text("and one text besides. " * 20)
    outcome = daybreak(
        *("prepare", tmp_path / "documents.jsonl.gz", tmp_path / "more.txt"),
        *("--out", tmp_path / "corpus", "--tokenizer", "bytes", "--val", "0.2"),
    )
    assert outcome.code == 0
    assert "bytes" in outcome.out
    assert f"--data {tmp_path / 'corpus'}" in outcome.err
    corpus = Corpus.open(tmp_path / "corpus")
    assert corpus.train.documents + corpus.validation.documents == 51
    assert corpus.validation.documents > 1


def test_train_trains_and_says_what_next(run_folder: Path, recipe: Path, corpus: Corpus, daybreak: Command) -> None:
    run = load(run_folder)
    assert run.finished
    assert run.spent.steps == 6
    outcome = daybreak("train", recipe, "--data", corpus.path, "--out", run_folder)
    assert outcome.code == 0
    assert "is finished" in outcome.err
    assert f"validation loss {run.metrics('validation')[-1]['loss']:.4f}" in outcome.out
    assert f"daybreak evaluate {run_folder}" in outcome.err


def test_train_takes_overrides(tmp_path: Path, recipe: Path, corpus: Corpus, daybreak: Command) -> None:
    words = ("train", recipe, "--data", corpus.path, "--out", tmp_path / "run", "budget=2 steps", "optimizer.lr=5e-3")
    assert daybreak(*words).code == 0
    run = load(tmp_path / "run")
    assert run.spent.steps == 2
    assert run.recipe.optimizer.lr == 5e-3


def test_evaluate_says_the_figures(run_folder: Path, daybreak: Command) -> None:
    expected = load(run_folder).evaluate()
    outcome = daybreak("evaluate", run_folder)
    assert outcome.code == 0
    for figure in (f"{expected.loss:.4f}", f"{expected.bits_per_byte:.4f}", f"{expected.tokens:,}"):
        assert figure in outcome.out


def test_evaluate_as_json_is_one_document(run_folder: Path, corpus: Corpus, daybreak: Command) -> None:
    outcome = daybreak("evaluate", run_folder, "--json", "--data", corpus.path)
    assert outcome.code == 0
    figures = json.loads(outcome.out)
    expected = load(run_folder).evaluate()
    assert figures["loss"] == expected.loss
    assert figures["perplexity"] == pytest.approx(2.718281828459045**expected.loss)
    assert figures["bits_per_byte"] == expected.bits_per_byte
    assert (figures["tokens"], figures["bytes"]) == (expected.tokens, expected.bytes)


def test_a_greedy_sample_is_the_same_whatever_the_seed(run_folder: Path, daybreak: Command) -> None:
    words = ("sample", run_folder, "the day", "--tokens", "8", "--greedy")
    first, second = daybreak(*words, "--seed", "1"), daybreak(*words, "--seed", "2")
    assert first.code == 0
    assert first.out.startswith("the day")
    assert first.out == second.out


def test_a_seed_decides_a_drawn_sample(run_folder: Path, daybreak: Command) -> None:
    words = ("sample", run_folder, "the day", "--tokens", "12", "--top-k", "100", "--seed")
    assert daybreak(*words, "1").out == daybreak(*words, "1").out
    assert daybreak(*words, "1").out != daybreak(*words, "2").out


def test_several_samples_are_set_apart_and_go_to_a_file(tmp_path: Path, run_folder: Path, daybreak: Command) -> None:
    words = ("sample", run_folder, "the day", "--tokens", "8", "--count", "3")
    shown = daybreak(*words)
    assert shown.code == 0
    parts = shown.out.split("\n---\nthe day")
    assert len(parts) == 3
    assert daybreak(*words, "--out", tmp_path / "samples.txt").out == ""
    assert (tmp_path / "samples.txt").read_text() == shown.out


def test_recipes_are_listed_and_printed(daybreak: Command) -> None:
    listed = daybreak("recipes")
    assert listed.code == 0
    assert "crammed-gpt2" in listed.out
    printed = daybreak("recipes", "crammed-gpt2")
    assert "sinusoidal" in printed.out
    assert "extends" not in printed.out


def test_recipes_as_json_are_one_document(daybreak: Command) -> None:
    facts = {fact["name"]: fact for fact in json.loads(daybreak("recipes", "--json").out)}
    assert facts["gpt2"]["parameters"] == 124_439_808
    assert facts["gpt2-medium"]["parameters"] == 354_823_168
    one = json.loads(daybreak("recipes", "gpt2", "--json").out)
    assert one["parameters"] == 124_439_808
    assert one["recipe"]["model"]["layers"] == 12


def test_a_printed_recipe_trains_the_same(tmp_path: Path, daybreak: Command) -> None:
    printed = daybreak("recipes", "gpt-star-127m").out
    (tmp_path / "mine.toml").write_text(printed)
    assert daybreak("recipes", tmp_path / "mine.toml").out == printed


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["gpt2-tinny"], ["gpt2-tinny", "gpt2-tiny"]),
        (["missing.toml"], ["missing.toml"]),
        (["{recipe}", "optimizer.lrr=1"], ["optimizer.lrr", "lr"]),
        (["{recipe}", "model.position.kind=rotory"], ["rotory", "rotary"]),
        (["{recipe}", "model.heads=3"], ["model.dim = 16", "model.heads = 3"]),
        (["{recipe}", "batch.tokens=100"], ["batch.tokens = 100", "data.window = 16", "96"]),
        (["{recipe}", "data.window=24"], ["data.window = 24", "model.context = 16"]),
        (["{recipe}", "model.layers=0"], ["model.layers"]),
        (["{recipe}", "budget=ten hours"], ["budget", "ten hours"]),
        (["{recipe}", "budget=10%"], ["budget", "10%"]),
        (["{recipe}", "budget=63 tokens"], ["budget", "64"]),
        (["{recipe}", "schedule.warmup=6 steps"], ["schedule.warmup", "6 steps"]),
        (["{recipe}", "lr"], ["lr", "key=value"]),
        (["{recipe}", "execution.device=tpu"], ["execution.device", "tpu"]),
        (["{recipe}", "model.vocab_size=200"], ["257", "200"]),
        (["{recipe}", "data.tokenizer=gpt2"], ["gpt2", "bytes"]),
        (["{recipe}", "data.window=1048576", "batch.tokens=1048576"], ["data.window"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) and value[0] in ("{recipe}", "missing.toml") else None,
)
def test_a_mistake_in_training_is_one_message_and_nothing_is_written(
    tmp_path: Path, recipe: Path, corpus: Corpus, daybreak: Command, words: list[str], named: list[str]
) -> None:
    filled = [word.format(recipe=recipe) for word in words]
    assert_refused(daybreak("train", *filled, "--data", corpus.path, "--out", tmp_path / "runs" / "run"), *named)
    assert not (tmp_path / "runs" / "run").exists()


def test_a_corpus_that_is_missing_empty_or_no_corpus_is_refused(
    tmp_path: Path, recipe: Path, daybreak: Command
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text")
    before = snapshot(tmp_path)
    for name in ("missing", "empty", "file"):
        refused = daybreak("train", recipe, "--data", tmp_path / name, "--out", tmp_path / "run")
        assert_refused(refused, tmp_path / name, "daybreak prepare")
    assert_refused(daybreak("train", recipe, "--out", tmp_path / "run"), "--data")
    assert snapshot(tmp_path) == before


def test_a_corpus_shorter_than_a_window_is_refused(tmp_path: Path, recipe: Path, daybreak: Command) -> None:
    (tmp_path / "text.txt").write_text("short text")
    assert daybreak("prepare", tmp_path / "text.txt", "--out", tmp_path / "corpus", "--tokenizer", "bytes").code == 0
    before = snapshot(tmp_path)
    refused = daybreak("train", recipe, "--data", tmp_path / "corpus", "--out", tmp_path / "run")
    assert_refused(refused, "data.window", "16")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("file", ["train-00000.bin", "validation-00000.bin", "tokenizer.json", "manifest.json"])
def test_a_damaged_corpus_is_refused_by_the_name_of_its_file(
    tmp_path: Path, recipe: Path, corpus: Corpus, daybreak: Command, file: str
) -> None:
    shutil.copytree(corpus.path, tmp_path / "corpus")
    content = (tmp_path / "corpus" / file).read_bytes()
    (tmp_path / "corpus" / file).write_bytes(content[:-9])
    before = snapshot(tmp_path)
    assert_refused(daybreak("train", recipe, "--data", tmp_path / "corpus", "--out", tmp_path / "run"), file)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("verb", ["train", "evaluate", "sample"])
def test_a_run_whose_checkpoints_are_all_damaged_is_refused(
    tmp_path: Path, recipe: Path, corpus: Corpus, run_folder: Path, daybreak: Command, verb: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    for checkpoint in (run / "checkpoints").iterdir():
        flip(checkpoint / "model.safetensors")
    before = snapshot(tmp_path)
    words = [recipe, "--data", corpus.path, "--out", run] if verb == "train" else [run]
    assert_refused(daybreak(verb, *words), run / "checkpoints", "damaged")
    assert snapshot(tmp_path) == before


def test_a_damaged_newest_checkpoint_is_said_and_the_one_before_is_used(
    tmp_path: Path, run_folder: Path, daybreak: Command
) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    flip(run / "checkpoints" / "step-00000006" / "model.safetensors")
    outcome = daybreak("evaluate", run, "--json")
    assert outcome.code == 0
    assert "step-00000006" in outcome.err
    assert json.loads(outcome.out)["step"] == 3


def test_a_run_of_another_recipe_is_refused_and_kept(
    recipe: Path, corpus: Corpus, run_folder: Path, daybreak: Command
) -> None:
    before = snapshot(run_folder)
    refused = daybreak("train", recipe, "--data", corpus.path, "--out", run_folder, "optimizer.lr=2e-2")
    assert_refused(refused, "optimizer.lr", "0.02", "0.01")
    assert snapshot(run_folder) == before


def test_a_run_goes_on_with_another_recipe_where_changes_are_accepted(
    tmp_path: Path, recipe: Path, corpus: Corpus, daybreak: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train", recipe, "--data", corpus.path, "--out", tmp_path / "run", "budget=100000 steps", "--stop-after")
    monkeypatch.setattr("daybreak.IMPORTED_AT", time.monotonic())
    stopped = daybreak(*words, "3s")
    assert stopped.code == 3
    assert stopped.out == ""
    assert "go on with: " in stopped.err
    assert "--stop-after 3s" in stopped.err
    steps = load(tmp_path / "run").spent.steps
    assert steps > 0
    assert_refused(daybreak(*words, "1h", "optimizer.lr=2e-2"), "optimizer.lr", "--accept-changes")
    monkeypatch.setattr("daybreak.IMPORTED_AT", time.monotonic())
    assert daybreak(*words, "3s", "optimizer.lr=2e-2", "--accept-changes").code == 3
    run = load(tmp_path / "run")
    assert run.spent.steps > steps
    assert run.recipe.optimizer.lr == 2e-2
    assert_refused(daybreak(*words, "1h", "model.layers=2", "--accept-changes"), "model.layers", "cannot change")
    assert_refused(daybreak(*words, "10 steps"), "stop_after", "10 steps")


def test_a_corpus_of_another_tokenizer_is_not_evaluated(tmp_path: Path, run_folder: Path, daybreak: Command) -> None:
    (tmp_path / "text.txt").write_text("the light of day " * 50)
    assert daybreak("prepare", tmp_path / "text.txt", "--out", tmp_path / "chars", "--tokenizer", "chars").code == 0
    assert_refused(daybreak("evaluate", run_folder, "--data", tmp_path / "chars"), "chars", "bytes", "tokenizer")


@pytest.mark.parametrize("verb", ["evaluate", "sample"])
def test_what_is_no_run_is_refused(tmp_path: Path, daybreak: Command, verb: str) -> None:
    assert_refused(daybreak(verb, tmp_path), tmp_path, "not a run")
    assert_refused(daybreak(verb, tmp_path / "missing"), tmp_path / "missing")
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["{text}", "--out", "{folder}", "--tokenizer", "bytes"], ["{folder}", "exists"]),
        (["{new}/missing.txt", "--out", "{new}", "--tokenizer", "bytes"], ["missing.txt"]),
        (["{empty}", "--out", "{new}", "--tokenizer", "bytes"], ["no text"]),
        (["{text}", "--out", "{new}", "--tokenizer", "bytes", "--val", "2"], ["--val 2"]),
        (["{text}", "--out", "{new}", "--tokenizer", "bytes", "--val", "0"], ["--val 0"]),
        (["{text}", "--out", "{new}", "--tokenizer", "bpe:100"], ["bpe:100", "257"]),
        (["{text}", "--out", "{new}", "--tokenizer", "words"], ["words"]),
    ],
    ids=["out exists", "source missing", "source empty", "val 2", "val 0", "bpe:100", "unknown tokenizer"],
)
def test_a_mistake_in_preparing_is_one_message_and_nothing_is_written(
    tmp_path: Path, daybreak: Command, words: list[str], named: list[str]
) -> None:
    places = {name: str(tmp_path / name) for name in ("text", "folder", "empty", "new")}
    for name, path in [("text", "text.txt"), ("empty", "empty.txt")]:
        places[name] = str(tmp_path / path)
    Path(places["text"]).write_text("a text of some length " * 40)
    Path(places["empty"]).write_text("")
    Path(places["folder"]).mkdir()
    before = snapshot(tmp_path)
    refused = daybreak("prepare", *(word.format(**places) for word in words))
    assert_refused(refused, *(name.format(**places) for name in named))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--top-p", "3"], ["top_p", "3"]),
        (["--top-k", "0"], ["top_k", "0"]),
        (["--temperature", "0"], ["temperature", "0"]),
        (["--greedy", "--temperature", "0.5"], ["greedy", "temperature"]),
        (["--greedy", "--top-k", "5"], ["greedy", "top-k"]),
        (["--seed", "-1"], ["seed", "-1"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_a_mistake_in_sampling_is_one_message_and_nothing_is_written(
    tmp_path: Path, run_folder: Path, daybreak: Command, words: list[str], named: list[str]
) -> None:
    before = snapshot(run_folder)
    assert_refused(daybreak("sample", run_folder, "day", *words, "--out", tmp_path / "samples.txt"), *named)
    assert snapshot(tmp_path) == {}
    assert snapshot(run_folder) == before


def test_a_mistake_in_a_real_process_is_one_message_without_a_traceback(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "daybreak", "recipes", "gpt2-medum"]
    made = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert_refused(Outcome(made.returncode, made.stdout, made.stderr), "gpt2-medum", "gpt2-medium")


def test_ctrl_c_saves_and_the_same_command_goes_on_to_the_same_end(
    tmp_path: Path, recipe: Path, corpus: Corpus, daybreak: Command
) -> None:
    words = ["train", str(recipe), "--data", str(corpus.path), "budget=500 steps", "checkpoint.every=100%", "--out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "daybreak", *words, str(tmp_path / "stopped")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    metrics, deadline = tmp_path / "stopped" / "metrics.jsonl", time.monotonic() + 60
    while not (metrics.is_file() and metrics.read_bytes().count(b"\n") >= 20):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert out == ""
    assert "Traceback" not in err
    assert f"-m daybreak train {recipe}" in err
    assert str(tmp_path / "stopped") in err
    stopped = load(tmp_path / "stopped")
    assert not stopped.finished
    assert 20 <= stopped.spent.steps < 500

    assert daybreak(*words, tmp_path / "stopped").code == 0
    assert daybreak(*words, tmp_path / "undisturbed").code == 0
    ours, theirs = (load(tmp_path / name) for name in ("stopped", "undisturbed"))
    assert ours.finished
    for file in ("model.safetensors", "optimizer.safetensors"):
        one, other = load_file(ours.checkpoint.path / file), load_file(theirs.checkpoint.path / file)
        assert one.keys() == other.keys()
        assert all(one[name].numpy().tobytes() == other[name].numpy().tobytes() for name in one)
    assert [record["loss"] for record in ours.metrics()] == [record["loss"] for record in theirs.metrics()]


@pytest.mark.slow
def test_the_demo_runs_whole_in_a_minute(tmp_path: Path) -> None:
    began = time.monotonic()
    made = subprocess.run(
        [sys.executable, "-m", "daybreak", "demo", "--minutes", "0.2", "--out", str(tmp_path / "demo")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # another test runs on the other core
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    took = time.monotonic() - began
    assert made.returncode == 0, made.stderr
    assert "bits a byte" in made.stdout
    assert "'def'" in made.stdout
    run = load(tmp_path / "demo")
    assert run.finished
    assert run.spent.elapsed_seconds <= 12.0
    assert run.spent.steps > 1
    assert run.metrics("validation")[-1]["loss"] < math.log(4096)  # what it is before any step
    assert took < 60
