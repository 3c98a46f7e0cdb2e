"""Every code block of README and docs is run, on small data and for a few steps, or marked as one that cannot be.

Those that cannot are checked for their verbs, options and settings all the same.
"""

import ast
import contextlib
import importlib
import io
import json
import lzma
import random
import re
import runpy
import shutil
import string
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import yaml

from commands import commands
from daybreak.cli import main
from daybreak.errors import UserError
from daybreak.recipe import Recipe
from markdown_blocks import Block, blocks_of, of_daybreak, words_of
from settings import configurations, settings_of

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
# These are to be followed from an empty folder on, so nothing is there that they do not make, but text.
FROM_NOTHING = {"README.md", "docs/tutorial.md"}
SLOW = {"docs/studies.md": "sixteen trials", "docs/tracking.md": "three trackers"}
# Long, or serving until they are stopped, and with tests of their own.
NOT_HERE = {"demo", "doctor", "bench", "play", "profile"}
WITH_SETTINGS = {"train", "extend", "plan", "bench", "profile"}  # which take a recipe, and key=value behind it
KEYS = {
    name
    for key, model, _ in configurations()
    for name in (key, f"{key}.kind", *(each.key for each in settings_of(key, model)))
}
KNOWN = {"cat", "cd", "export", "ls", "mkdir", "printf", "rm", "source"}
SMALL = ["model.layers=1", "model.dim=32", "model.heads=2", "model.context=64", "data.window=64", "batch.tokens=512",
         "model.lookup.rows=1024", "evaluation.tokens=1000", "samples.tokens=5"]  # fmt: skip


def blocks(name: str) -> list[Block]:
    return list(blocks_of(ROOT / name))


@pytest.mark.parametrize("name", NAMES)
def test_names_are_those_of_the_program(name: str) -> None:
    """Languages, verbs, options, settings, files of this repository; what is not run, too."""
    for block in blocks(name):
        check = CHECKS.get(block.language)
        assert check is not None, f"{block.where}: a block of {block.language!r}, which nothing here reads"
        check(block)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in NAMES]
)
def test_blocks_run(name: str, tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not any(block.is_run() and block.language in RUNS for block in blocks(name)):
        pytest.skip("no block of it can be run")
    make_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    for block in blocks(name):
        if block.language in RUNS:
            RUNS[block.language](block, None if name in FROM_NOTHING else world)


def test_a_block_that_nothing_can_run_has_to_say_so(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```bash\ndaybreak trian gpt2\n```\n\n<!-- not run: a cluster -->\n```bash\nsrun daybreak\n```\n")
    wrong, marked = blocks_of(page)
    with pytest.raises(AssertionError, match="no verb trian"):
        check_shell(wrong)
    assert not marked.is_run()
    assert marked.reason == "a cluster"
    unknown = Block("here", "bash", "frobnicate --all\n", "", "")
    with pytest.raises(AssertionError, match="frobnicate"):
        check_shell(unknown)


def test_the_two_commands_of_a_newcomer_are_targets_of_the_makefile() -> None:
    wanted = re.findall(r"^make (\S+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert {"demo", "test"} <= set(wanted) <= targets()


# What a block says.


def check_shell(block: Block) -> None:
    read = subprocess.run(["bash", "-n"], input=block.content, text=True, capture_output=True, check=False)
    assert read.returncode == 0, f"{block.where}: {read.stderr}"
    for command in block.commands:
        check_command(command, block)


def check_command(command: str, block: Block) -> None:
    words = words_of(command)
    asked = of_daybreak(words)
    if asked is not None:
        check_daybreak(asked, block, block.is_run(command))
    elif words[:2] == ["pip", "install"]:
        check_install(words[2:], block)
    elif words[0] == "make":
        assert words[1] in targets(), f"{block.where}: the Makefile has no target {words[1]}"
    elif words[0] == "python" and "/" in words[1]:
        program = ROOT / words[1]
        assert program.is_file(), f"{block.where}: there is no {words[1]}"
        unknown = [word for word in options_in(words) if f'"{word}"' not in program.read_text()]
        assert not unknown, f"{block.where}: {words[1]} has no {unknown}"
    elif block.is_run(command):
        known = words[0] in KNOWN or (words[0] == "python" and Path(words[1]).name in all_files_of(block))
        assert known, f"{block.where}: nothing here can run {words[0]!r}; mark the block <!-- not run: why -->"


def check_daybreak(words: list[str], block: Block, is_run: bool) -> None:
    if words == ["--install-completion"] or words == ["--version"]:
        return
    command = commands().get(words[0])
    assert command is not None, f"{block.where}: there is no verb {words[0]}"
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help"}
    unknown = [word for word in options_in(words) if word not in known]
    assert not unknown, f"{block.where}: daybreak {words[0]} has no {unknown}"
    settings = [word for word in words[1:] if re.match(r"[a-z0-9_.]+=", word)]
    misspelt = [each for each in settings if each.partition("=")[0] not in KEYS]
    assert not misspelt or words[0] not in WITH_SETTINGS, f"{block.where}: there is no setting {misspelt}"
    if words[0] in WITH_SETTINGS - {"extend"} and is_run and not words[1].endswith(".toml"):
        # What a run begins from is there once the block runs, not yet here.
        known = [each for each in settings if not each.startswith(("init", "freeze"))]
        try:
            Recipe.load("gpt2-tiny" if words[1] == "auto" else words[1], *known)
        except UserError as error:
            pytest.fail(f"{block.where}: {error}")


def check_install(words: list[str], block: Block) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = [extra for word in words for group in re.findall(r"daybreak\[(.*?)\]", word) for extra in group.split(",")]
    assert set(named) <= set(extras), f"{block.where}: {named} are not all extras"


def check_toml(block: Block) -> None:
    content = tomllib.loads(block.content)
    if "base" in content or "init" in content:  # read where it is run
        return
    extends = "" if "extends" in content else 'extends = "gpt2-tiny"\n'
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "fragment.toml"
        recipe.write_text(extends + block.content)
        try:
            Recipe.load(recipe)
        except UserError as error:
            pytest.fail(f"{block.where}: {error}")


def check_python(block: Block) -> None:
    for node in ast.walk(ast.parse(block.content)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("daybreak"):
            module = importlib.import_module(node.module or "")
            missing = [each.name for each in node.names if not hasattr(module, each.name)]
            assert not missing, f"{block.where}: {node.module} has no {missing}"


def check_yaml(block: Block) -> None:
    assert yaml.safe_load(block.content), block.where


def check_json(block: Block) -> None:
    assert json.loads(block.content), block.where


def check_output(block: Block) -> None:
    """What a program printed; where it says by which command, that one's names."""
    for command in re.findall(r"^\$ (daybreak .*)$", block.content, flags=re.MULTILINE):
        check_command(command, block)


CHECKS: dict[str, Any] = {
    "": check_output, "text": check_output, "bash": check_shell, "sh": check_shell, "toml": check_toml,
    "python": check_python, "yaml": check_yaml, "json": check_json, "diff": check_output,
}  # fmt: skip


# What a block does.


def run_shell(block: Block, world: Path | None) -> None:
    for name, content in block.files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(shortened_file(name, content))
    for command in block.commands:
        words = words_of(command)
        asked = of_daybreak(words)
        if not block.is_run(command) or words[0] == "torchrun":
            continue
        if asked is not None and (asked[0] in NOT_HERE or (asked[0] == "plan" and "--device" not in asked)):
            continue  # a plan that measures begins a run in a process of its own
        if asked is not None:
            if world is not None:
                supply(asked, world)
            assert run_daybreak(shortened(asked), piped(command)) == 0, f"{block.where}: {command}"
        elif words[0] == "python" and "/" not in words[1]:
            runpy.run_path(words[1], run_name="__main__")
        elif words[0] in ("mkdir", "printf", "rm"):
            subprocess.run(["bash", "-c", command], check=True)


def run_daybreak(words: list[str], stdin: str | None) -> int:
    """The command line in this process; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["daybreak", *words])
        if stdin is not None:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(stdin).read_bytes())))
        with pytest.raises(SystemExit) as ended, contextlib.redirect_stdout(io.StringIO()):
            main()
    code = ended.value.code
    asked_to_stop = any(word.startswith("--stop-after") for word in words)
    return 0 if code is None or (code == 3 and asked_to_stop) else int(code)


def run_toml(block: Block, world: Path | None) -> None:
    """Saved under the name that it has, and trained where its first line says so."""
    if block.file_name is None:
        return
    Path(block.file_name).write_text(shortened_file(block.file_name, block.content))
    command = re.match(r"# \S+, trained by: (daybreak .*)", block.content)
    if command:
        words = words_of(command[1])[1:]
        if world is not None:
            supply(words, world)
        assert run_daybreak(shortened(words), None) == 0, block.where


def run_python(block: Block, world: Path | None) -> None:
    if not block.is_run():
        return
    if world is not None:
        supply(re.findall(r'"((?:runs|data)/[\w-]+)"', block.content), world)
    settings = ", ".join(f'"{each}"' for each in ["budget=2steps", *SMALL])
    Path("example.py").write_text(re.sub(r'"budget=[^"]*"', settings, block.content))
    with contextlib.redirect_stdout(io.StringIO()):
        runpy.run_path(block.file_name or "example.py")


RUNS: dict[str, Any] = {"bash": run_shell, "sh": run_shell, "toml": run_toml, "python": run_python}


def shortened(words: list[str]) -> list[str]:
    """The same command for two steps of a small model, and on text that is here."""
    verb = words[0]
    if verb == "prepare":
        known = [] if "--tokenizer" in words else ["--tokenizer", "bytes"]  # GPT-2's is a download
        return [*(("play.txt" if word == "shakespeare" else word) for word in words), *known]
    if verb == "inspect" and "--window" in words:
        return [*words[:2], "--window", "1", "--size", "64"]
    if verb not in ("train", "extend"):
        return words
    if "--stop-after" in words:  # it counts from the start of this process, which is long ago
        words = [*words[: (at := words.index("--stop-after"))], *words[at + 2 :]]
    kept = [word for word in words if not word.startswith(("budget=", "checkpoint.every=", "model.layers="))]
    if any(word in ("auto", "runs/auto") for word in words):
        # Fifty steps are the fewest that auto accepts.
        return [*kept, *(["budget=80steps"] if verb == "extend" else ["budget=60steps", *AUTO])]
    if verb == "extend":
        return [*kept, "budget=20steps"]
    steps = "budget=10steps" if "wsd" in str(words) else "budget=2steps"
    if any(word.startswith("init=") for word in words):  # the shape is the source's
        return [
            *kept,
            steps,
            "batch.tokens=1024",
            *(each for each in SMALL if not each.startswith(("model.", "batch."))),
        ]
    return [*kept, steps, "schedule.warmup=10%", *SMALL]


AUTO = ["batch.tokens=256", "data.window=64", "model.context=64", "model.lookup.rows=1024", "evaluation.tokens=1000"]


def shortened_file(name: str, content: str) -> str:
    """A study of two seeds of a small model; of the tutorial's text a part; anything else as it is."""
    if name == "collect.py":
        assert '("torch", "numpy")' in content
        return content.replace('("torch", "numpy")', "()")
    if "[changes]" not in content:
        return content
    small = [each for each in SMALL if not each.startswith("samples")]
    content = re.sub(r"^budget = .*$", 'budget = "1k tokens"', content, flags=re.MULTILINE)
    return re.sub(r"^seeds = .*$", f"seeds = 2\nsettings = {small}", content, flags=re.MULTILINE)


def supply(words: list[str], world: Path) -> None:
    """Runs and corpora that a page takes for granted: copies of one that is here."""
    made = {words[index + 1] for index, word in enumerate(words[:-1]) if word == "--out"}
    made |= set(words[2:3] if words[:1] == ["import"] else [])
    for word in (each.removeprefix("init=") for each in words):
        kind, _, name = word.partition("/")
        if kind in ("runs", "data") and name and word not in made and not Path(word).exists():
            shutil.copytree(world / kind / "mine", word)


def piped(command: str) -> str | None:
    """The file that `cat FILE |` hands over."""
    found = re.match(r"cat (\S+) \|", command)
    return found[1] if found else None


def options_in(words: list[str]) -> list[str]:
    return [word.partition("=")[0] for word in words if word.startswith("--") and word != "--"]


def targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def all_files_of(block: Block) -> set[str]:
    """What the blocks of its page write."""
    page = next(path for path in DOCUMENTS if path.name == block.where.partition(":")[0])
    found = list(blocks_of(page))
    return {name for each in found for name in each.files} | {each.file_name for each in found if each.file_name}


# What is there before.


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus `data/mine` and a run `runs/mine`, as the README makes them."""
    folder = tmp_path_factory.mktemp("world")
    make_text(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in (
            "prepare notes/ books/b.txt dump.jsonl.xz --tokenizer bpe:4096 --out data/mine",
            "train gpt2-tiny --data data/mine --out runs/mine",
        ):
            assert run_daybreak(shortened(command.split()), None) == 0
    return folder


def make_text(folder: Path) -> None:
    generator = random.Random(0)
    words = ["day", "break", "once", "upon", "time", "light", "window", "order", "the", "of", "and", "Is", "not\n"]
    lines = [" ".join(generator.choice(words) for _ in range(2000)) for _ in range(6)]
    for name in ("notes", "books", "more"):
        (folder / name).mkdir(parents=True)
    (folder / "notes" / "a.txt").write_text(lines[0] + lines[1])
    (folder / "books" / "b.txt").write_text(lines[2])
    (folder / "book.txt").write_text(lines[2][:2000])
    (folder / "play.txt").write_text(string.ascii_letters + ":;,.!?\n" + lines[3] * 2)
    prose = [
        text for text in (ROOT / "docs" / "budgets.md").read_text().split("\n\n") if len(text) > 300 and "|" not in text
    ]
    pyarrow.parquet.write_table(pyarrow.table({"body": [" ".join(prose), *prose]}), folder / "dump-1.parquet")
    for name in ("dump", "articles", "more/b"):
        with lzma.open(folder / f"{name}.jsonl.xz", "wt") as file:
            for text in (line[start : start + 2500] for line in lines[4:] for start in range(0, 10_000, 2500)):
                file.write(json.dumps({"text": text}) + "\n")
