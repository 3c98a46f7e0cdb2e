"""A flipped byte is caught wherever it falls, in every kind of file of a corpus and of a run; so is coarser damage."""

import random
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from daybreak import Recipe, cli, load, train
from daybreak.checkpoint import list_checkpoints
from daybreak.data.prepare import prepare
from daybreak.data.shards import Corpus
from daybreak.errors import UserError
from daybreak.verify import verify
from made_text import write_documents

SETTINGS = (
    "data.tokenizer=bytes",
    "data.window=16",
    "batch.tokens=64",
    "model.layers=1",
    "model.heads=2",
    "model.dim=16",
    "model.context=16",
    "model.vocab_size=257",
    "budget=6steps",
    "evaluation.tokens=100",
    "checkpoint.every=2steps",
    "execution.threads=1",
)
CORPUS, CHECKPOINT, RUN = "corpus", "newest checkpoint", "run"
# Where, which files, and how many positions are tried.
KINDS = {
    (CORPUS, "manifest.json"): 40,
    (CORPUS, "tokenizer.json"): 40,
    (CORPUS, "*[0-9].bin"): 60,
    (CORPUS, "*.documents.bin"): 40,
    (CHECKPOINT, "model.safetensors"): 40,
    (CHECKPOINT, "optimizer.safetensors"): 40,
    (CHECKPOINT, "state.json"): 40,
    (CHECKPOINT, "manifest.json"): 40,
    (RUN, "recipe.toml"): 40,
    (RUN, "identity.json"): 40,
    (RUN, "execution.json"): 40,
    (RUN, "tokenizer.json"): 40,
    (RUN, "finished.json"): 40,
    (RUN, "metrics.jsonl"): 60,
}


@dataclass(frozen=True)
class Made:
    """A corpus of several shards, and a finished run on it."""

    corpus: Path
    run: Path

    @property
    def newest(self) -> Path:
        return list_checkpoints(self.run / "checkpoints")[-1]

    def files(self, where: str, pattern: str) -> list[Path]:
        folder = {CORPUS: self.corpus, CHECKPOINT: self.newest, RUN: self.run}[where]
        found = sorted(folder.glob(pattern))
        assert found
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("flips")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daybreak.data.pipeline._SHARD_TOKENS", 6000)
        corpus = prepare([str(write_documents(folder))], folder / "corpus", tokenizer="bytes")
    assert len(corpus.train.shards) > 2
    run = train(Recipe.load("gpt2-tiny", *SETTINGS), data=corpus.path, out=folder / "run")
    assert run.finished
    assert len(list_checkpoints(run.path / "checkpoints")) == 2
    return Made(corpus.path, run.path)


@contextmanager
def restored(*files: Path) -> Iterator[None]:
    """Whatever is done to these files inside is undone."""
    before = {file: file.read_bytes() for file in files}
    try:
        yield
    finally:
        for file, content in before.items():
            file.write_bytes(content)


def is_reported(made: Made, file: Path) -> bool:
    """Whether `verify` finds the file wrong; by its name, or in what it says of the one that could not be checked."""
    folder = made.corpus if file.is_relative_to(made.corpus) else made.run
    return any(each.problem and (each.path == file or str(file) in each.problem) for each in verify(folder))


def is_refused(made: Made, where: str, name: str) -> bool:
    """Whether what is damaged is not used: an error, or the checkpoint before it."""
    newest = made.newest
    try:
        if where == CORPUS:
            Corpus.open(made.corpus)
            return False
        run = load(made.run)
    except UserError:
        return where != CHECKPOINT
    if where == CHECKPOINT:
        return run.checkpoint.path == list_checkpoints(made.run / "checkpoints")[0] != newest and not run.finished
    # Of the metrics only whole lines are read; a tokenizer is trusted by its identity, whatever the spaces in between.
    return name in ("metrics.jsonl", "tokenizer.json")


def assert_caught(made: Made, where: str, file: Path, what: str) -> None:
    assert is_reported(made, file), f"{file.name}: {what} is not reported"
    assert is_refused(made, where, file.name), f"{file.name}: {what} is not refused"


def assert_good(made: Made) -> None:
    assert [each for folder in (made.corpus, made.run) for each in verify(folder) if each.problem] == []
    Corpus.open(made.corpus)
    assert load(made.run).finished


def test_over_three_hundred_positions_are_tried() -> None:
    assert sum(KINDS.values()) >= 300
    assert min(KINDS.values()) >= 20


@pytest.mark.parametrize(("where", "pattern"), KINDS, ids=" ".join)
def test_a_flipped_byte_is_caught(made: Made, where: str, pattern: str) -> None:
    generator = random.Random(f"{where} {pattern}")
    files, caught = made.files(where, pattern), 0
    for number in range(KINDS[where, pattern]):
        file = files[number % len(files)]
        with restored(file):
            content = bytearray(file.read_bytes())
            position = generator.randrange(len(content))
            old = content[position]
            content[position] = (old + generator.randrange(1, 256)) % 256
            file.write_bytes(content)
            assert_caught(made, where, file, f"{old:#x} -> {content[position]:#x} at {position}")
            caught += 1
    print(f"{where} {pattern}: {caught} of {KINDS[where, pattern]} caught")
    assert caught == KINDS[where, pattern]
    assert_good(made)


@pytest.mark.parametrize("value", [b"\r", b" ", b"\t", b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\0", b"}"])
def test_a_newline_of_the_metrics_that_becomes_another_byte_is_caught(made: Made, value: bytes) -> None:
    file = made.run / "metrics.jsonl"
    content = file.read_bytes()
    positions = [position for position, byte in enumerate(content) if byte == 0x0A]
    for position in positions:
        with restored(file):
            file.write_bytes(content[:position] + value + content[position + 1 :])
            assert_caught(made, RUN, file, f"{value!r} for the newline at {position}")


@pytest.mark.parametrize("value", [b"\r", b" ", b"\t", b"\n"])
@pytest.mark.parametrize(
    ("where", "name"), [key for key in KINDS if key[1].endswith(("json", "toml"))], ids=lambda x: x
)
def test_a_blank_that_becomes_another_blank_is_caught(made: Made, where: str, name: str, value: bytes) -> None:
    (file,) = made.files(where, name)
    content = file.read_bytes()
    positions = [index for index, byte in enumerate(content) if byte in b" \n" and byte != value[0]]
    for position in random.Random(name).sample(positions, min(5, len(positions))):
        with restored(file):
            file.write_bytes(content[:position] + value + content[position + 1 :])
            assert_caught(made, where, file, f"{value!r} at {position}")


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "the second half is missing": lambda content: content[: len(content) // 2],
    "the first half is missing": lambda content: content[len(content) // 2 :],
    "the last two bytes are missing": lambda content: content[:-2],
    "the first byte is missing": lambda content: content[1:],
    "a byte more at the end": lambda content: content + b"x",
    "a zero byte more at the end": lambda content: content + b"\0",
    "a byte more in front": lambda content: b" " + content,
    "a byte more inside": lambda content: content[: len(content) // 2] + b"0" + content[len(content) // 2 :],
    "all is zero": lambda content: bytes(len(content)),
    "the halves are swapped": lambda content: content[len(content) // 2 :] + content[: len(content) // 2],
}


@pytest.mark.parametrize(("where", "pattern"), KINDS, ids=" ".join)
@pytest.mark.parametrize("what", DAMAGE)
def test_coarser_damage_is_caught(made: Made, where: str, pattern: str, what: str) -> None:
    for file in made.files(where, pattern)[:3]:
        with restored(file):
            content = file.read_bytes()
            damaged = DAMAGE[what](content)
            assert damaged != content
            file.write_bytes(damaged)
            assert_caught(made, where, file, what)


@pytest.mark.parametrize(("where", "pattern"), [key for key in KINDS if key[1] != "metrics.jsonl"], ids=" ".join)
def test_an_empty_file_is_caught(made: Made, where: str, pattern: str) -> None:
    for file in made.files(where, pattern)[:3]:
        with restored(file):
            file.write_bytes(b"")
            assert_caught(made, where, file, "nothing in it")


@pytest.mark.parametrize(
    ("where", "pattern"), [key for key in KINDS if key[1] not in ("metrics.jsonl", "finished.json")], ids=" ".join
)
def test_a_missing_file_is_caught(made: Made, where: str, pattern: str) -> None:
    for file in made.files(where, pattern)[:3]:
        with restored(file):
            file.unlink()
            assert_caught(made, where, file, "no such file")


def test_a_run_whose_end_is_not_recorded_is_not_finished(made: Made) -> None:
    with restored(made.run / "finished.json"):
        (made.run / "finished.json").unlink()
        assert not load(made.run).finished
    assert_good(made)


@pytest.mark.parametrize(
    ("where", "one", "other"),
    [
        (CORPUS, "train-00000.bin", "train-00001.bin"),
        (CORPUS, "train-00000.bin", "validation-00000.bin"),
        (CORPUS, "train-00000.documents.bin", "train-00001.documents.bin"),
        (CHECKPOINT, "model.safetensors", "optimizer.safetensors"),
    ],
)
def test_files_that_are_swapped_or_copied_over_one_another_are_caught(
    made: Made, where: str, one: str, other: str
) -> None:
    (first,), (second,) = made.files(where, one), made.files(where, other)
    contents = first.read_bytes(), second.read_bytes()
    assert contents[0] != contents[1]
    with restored(first, second):
        first.write_bytes(contents[1])
        second.write_bytes(contents[0])
        assert_caught(made, where, first, f"swapped with {other}")
        assert is_reported(made, second)
    with restored(second):
        shutil.copyfile(first, second)
        assert_caught(made, where, second, f"a copy of {one}")
    assert_good(made)


@pytest.mark.parametrize("bytes_more", [-1, 1, 2, 3])
def test_a_shard_of_another_length_is_caught(made: Made, bytes_more: int) -> None:
    file = made.corpus / "train-00001.bin"
    with restored(file):
        content = file.read_bytes()
        file.write_bytes(content[:bytes_more] if bytes_more < 0 else content + content[:bytes_more])
        assert_caught(made, CORPUS, file, f"{bytes_more} bytes more")


def test_checkpoints_that_changed_places_are_caught(made: Made, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(made.run, run)
    older, newer = list_checkpoints(run / "checkpoints")
    older.rename(run / "aside")
    newer.rename(older)
    (run / "aside").rename(newer)
    assert sum(each.problem is not None for each in verify(run)) == 2
    with pytest.raises(UserError, match=r"under another name|damaged"):
        load(run)


def exit_code(*words: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["daybreak", *map(str, words)])
        try:
            cli.main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_the_exit_code_of_verify_says_what_it_found(
    made: Made, tmp_path: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (made.corpus, made.run):
        assert exit_code("verify", folder, *options) == 0
    for where, pattern in KINDS:
        file = made.files(where, pattern)[0]
        with restored(file):
            content = file.read_bytes()
            file.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
            capsys.readouterr()
            assert exit_code("verify", made.corpus if where == CORPUS else made.run, *options) == 1
            said = capsys.readouterr()
            assert file.name in said.out
            assert "Traceback" not in said.err
    (tmp_path / "file").write_text("neither")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        assert exit_code("verify", path, *options) == 2
    assert capsys.readouterr().err.count("error: ") == 3
