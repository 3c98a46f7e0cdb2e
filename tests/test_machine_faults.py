"""What a machine does to a run: full disks, no network, little memory. Namespaces need Linux that allows them."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daybreak import Recipe, load, train
from daybreak.data.shards import Corpus

SETTINGS = (
    "data.tokenizer=bytes", "data.window=16", "batch.tokens=64", "model.layers=1", "model.heads=2", "model.dim=64",
    "model.context=16", "model.vocab_size=257", "evaluation.tokens=100", "execution.threads=1",
)  # fmt: skip
DAYBREAK = (sys.executable, "-m", "daybreak")


def can_unshare(*options: str) -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", *options, "true"], capture_output=True).returncode == 0


needs_mounts = pytest.mark.skipif(not can_unshare("-Urm"), reason="this system makes no user and mount namespaces")
needs_networks = pytest.mark.skipif(not can_unshare("-Urn"), reason="this system makes no user and network namespaces")


@needs_mounts
def test_a_full_disk_is_one_message_with_path_needed_and_free_and_keeps_the_old_checkpoint(
    corpus: Corpus, tmp_path: Path
) -> None:
    """On a disk of 8 MB: checkpoints of 1 MB, all of which are to be kept."""
    mount, kept = tmp_path / "disk", tmp_path / "kept"
    mount.mkdir()
    train_words = [
        *DAYBREAK, "train", "gpt2-tiny", *SETTINGS, "budget=40steps", "checkpoint.every=1steps", "checkpoint.keep=40",
        "--data", str(corpus.path), "--out", str(mount / "run"),
    ]  # fmt: skip
    script = (
        'mount -t tmpfs -o size=8m none "$1" && shift && kept="$1" && shift && "$@"; '
        'code=$?; cp -r "$0" "$kept"; exit $code'
    )
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script, str(mount / "run"), str(mount), str(kept), *train_words],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    message = done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert str(mount / "run") in message
    assert "needed" in message
    assert "free" in message
    run = load(kept)
    assert run.spent.steps >= 2
    assert not list(kept.rglob("*.partial"))


def test_a_file_size_limit_inside_a_save_is_one_message_and_keeps_the_old_checkpoint(
    corpus: Corpus, tmp_path: Path
) -> None:
    first = Recipe.load("gpt2-tiny", *SETTINGS, "budget=6steps", "checkpoint.every=2steps")
    words = [
        *DAYBREAK, "train", "gpt2-tiny", *SETTINGS, "budget=6steps", "checkpoint.every=2steps",
        "--data", str(corpus.path), "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    limited = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)),
    )
    assert limited.returncode == 2, limited.stderr
    assert "Traceback" not in limited.stderr
    assert str(tmp_path / "run") in limited.stderr
    assert not list(tmp_path.rglob("*.partial"))
    assert train(first, data=corpus.path, out=tmp_path / "run").finished


def test_a_log_that_cannot_be_written_never_stops_training(corpus: Corpus, tmp_path: Path) -> None:
    recipe = Recipe.load("gpt2-tiny", *SETTINGS, "budget=6steps", "checkpoint.every=2steps")
    train(recipe, data=corpus.path, out=tmp_path / "undisturbed")
    run = tmp_path / "run"
    words = [*DAYBREAK, "train", "gpt2-tiny", *SETTINGS, "budget=6steps", "checkpoint.every=2steps"]
    run.mkdir()
    child = (
        "import sys, pathlib\n"
        "from daybreak import sitting\n"
        "metrics = sitting.Metrics\n"
        "sitting.Metrics = lambda path, *more: metrics(pathlib.Path('/dev/full'), *more)\n"
        "from daybreak.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", child, *words[3:], "--data", str(corpus.path), "--out", str(run)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot be written") == 1
    saved = "checkpoints/step-00000006/model.safetensors"
    weights = [(tmp_path / name / saved).read_bytes() for name in ("undisturbed", "run")]
    assert weights[0] == weights[1]


@needs_networks
def test_the_whole_main_job_works_without_a_network(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the day breaks over the window and the light comes in. " * 400)
    steps = (
        ["prepare", "text.txt", "--tokenizer", "bpe:300", "--out", "corpus"],
        ["train", "gpt2-tiny", *SETTINGS[1:], "data.tokenizer=bpe:300", "model.vocab_size=320", "budget=5steps",
         "--data", "corpus", "--out", "run"],
        ["evaluate", "run"],
        ["sample", "run", "the day", "--tokens", "5"],
        ["verify", "run"],
        ["verify", "corpus"],
    )  # fmt: skip
    bare = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "PYTHONPATH", "VIRTUAL_ENV")}
    for words in steps:
        done = subprocess.run(
            ["unshare", "-Urn", *DAYBREAK, *words],
            cwd=tmp_path,
            env=bare | {"HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, (words, done.stderr)


@pytest.mark.parametrize("megabytes", [600, pytest.param(1200, marks=pytest.mark.slow), 2400])
def test_preparation_with_little_memory_completes_or_says_so_in_one_line(megabytes: int, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a line of text that is not long\n" * 200_000)
    limit = megabytes * 1_000_000
    done = subprocess.run(
        [*DAYBREAK, "prepare", "text.txt", "--tokenizer", "bytes", "--out", "corpus"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.returncode in (0, 2), done.stderr
    if done.returncode == 2:
        assert "Traceback" not in done.stderr
        assert "memory" in done.stderr
        assert not (tmp_path / "corpus").exists()
