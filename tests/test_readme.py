"""Every command and every example of the README runs, on small data and for a few steps."""

import lzma
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from daybreak.cli import main

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def commands() -> list[list[str]]:
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    # The doctor takes half a minute, and has tests of its own.
    return [each for each in words if each and each[0] == "daybreak" and each[1] != "doctor"]


def shortened(words: list[str]) -> list[str]:
    """The same command for two steps, and on text that is here."""
    if words[1] == "prepare":
        return [("play.txt" if word == "shakespeare" else word) for word in words]
    if words[1] in ("plan", "report"):
        return words
    if words[1] in ("train", "extend") and any(word in ("auto", "runs/auto") for word in words):
        # Fifty steps are the fewest that auto accepts; small ones do.
        small = ["batch.tokens=256", "data.window=64", "model.context=64", "model.lookup.rows=1024"]
        steps = ["budget=60steps", *small, "evaluation.tokens=1000"] if words[1] == "train" else ["budget=80steps"]
        return [*(word for word in words if not word.startswith("budget=")), *steps]
    if words[1] == "train":
        kept = [word for word in words if not word.startswith(("budget=", "checkpoint.every="))]
        return [*kept, "budget=2steps", "evaluation.tokens=1000", "samples.tokens=5", "schedule.warmup=10%"]
    return words


def make_text(folder: Path) -> None:
    generator = random.Random(0)
    words = ["day", "break", "once", "upon", "time", "light", "window", "order", "the", "of", "and", "Is", "not\n"]
    lines = [" ".join(generator.choice(words) for _ in range(2000)) for _ in range(6)]
    (folder / "notes").mkdir()
    (folder / "books").mkdir()
    (folder / "notes" / "a.txt").write_text(lines[0] + lines[1])
    (folder / "books" / "b.txt").write_text(lines[2])
    (folder / "play.txt").write_text(lines[3] * 2 + "Once")
    with lzma.open(folder / "dump.jsonl.xz", "wt") as file:
        file.writelines('{"text": "' + line.replace("\n", "\\n") + '"}\n' for line in lines[4:])


def test_every_command_and_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    study = next(each for each in blocks("toml") if "[changes]" in each)
    small = ["model.layers=1", "model.dim=32", "model.heads=2", "batch.tokens=512", "evaluation.tokens=1000"]
    short = f"seeds = 2\nsettings = {small}"
    Path("bias.toml").write_text(study.replace("30s", "2k tokens").replace("seeds = 5", short))
    ran = []
    for words in map(shortened, commands()):
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code, words
        ran.append(words[1])
    assert {"prepare", "train", "evaluate", "sample", "study", "report"} <= set(ran)

    toml = next(each for each in blocks("toml") if "trained by" in each)
    named = re.match(r"# (\S+\.toml), trained by: daybreak (.*)", toml)
    assert named is not None
    (tmp_path / named[1]).write_text(toml)
    monkeypatch.setattr(sys, "argv", shortened(["daybreak", *shlex.split(named[2])]))
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code

    (python,) = blocks("python")
    (tmp_path / "example.py").write_text(python.replace('"budget=90s"', '"budget=2steps", "evaluation.tokens=1000"'))
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_two_commands_of_a_newcomer_are_targets_of_the_makefile() -> None:
    wanted = re.findall(r"^make (\S+)", "\n".join(blocks("bash") + blocks("sh")), flags=re.MULTILINE)
    targets = re.findall(r"^([\w-]+):", (README.parent / "Makefile").read_text(), flags=re.MULTILINE)
    assert {"demo", "test"} <= set(wanted) <= set(targets)
