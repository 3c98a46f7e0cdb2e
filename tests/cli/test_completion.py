"""What a shell is told to propose, and that it need not wait for it."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daybreak.cli import completing, main
from daybreak.cli.recipes import recipes

VERBS = {
    "prepare",
    "import",
    "inspect",
    "demo",
    "recipes",
    "plan",
    "train",
    "extend",
    "evaluate",
    "sample",
    "study",
} | {*("compare", "report", "bench", "profile", "doctor", "verify")}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two runs, a study, a corpus, a recipe, and what is none of them."""
    for name, file in {
        "runs/mine": "recipe.toml",
        "runs/more": "recipe.toml",
        "runs/bias": "study.json",
        "runs/notes": "notes.txt",
        "elsewhere/deep": "recipe.toml",
        "data/text": "manifest.json",
    }.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / file).touch()
    (tmp_path / "wide.toml").write_text('extends = "gpt2-tiny"')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def proposed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str) -> list[str]:
    """What bash is given for the last word of a line."""
    words = [*shlex.split(line), *([""] if line.endswith(" ") else [])]
    monkeypatch.setenv("_DAYBREAK_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    monkeypatch.setattr(sys, "argv", ["daybreak"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("daybreak tra", ["train"]),
        ("daybreak re", ["recipes", "report"]),
        ("daybreak train --st", ["--stop-after"]),
        ("daybreak train gpt2", ["gpt2", "gpt2-medium", "gpt2-tiny"]),
        ("daybreak train au", ["auto"]),
        ("daybreak plan au", []),
        ("daybreak train wi", ["wide.toml"]),
        ("daybreak train gpt2 --data ", ["data/text"]),
        ("daybreak sample ", ["runs/mine", "runs/more"]),
        ("daybreak sample runs/mi", ["runs/mine"]),
        ("daybreak compare runs/mine runs/mo", ["runs/more"]),
        ("daybreak sample elsewhere/", ["elsewhere/deep"]),
        ("daybreak sample nowhere/", []),
        ("daybreak report ", ["runs/mine", "runs/more", "runs/bias"]),
        ("daybreak verify ", ["runs/mine", "runs/more", "data/text"]),
        ("daybreak prepare sh", ["shakespeare"]),
        ("daybreak prepare notes --tokenizer g", ["gpt2"]),
        ("daybreak prepare notes --tokenizer d", ["data/text"]),
    ],
)
def test_bash_is_given(
    place: Path, line: str, wanted: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert proposed(monkeypatch, capsys, line) == wanted


def test_all_verbs_are_proposed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(proposed(monkeypatch, capsys, "daybreak ")) >= VERBS


def test_the_recipes_are_those_that_the_program_lists(capsys: pytest.CaptureFixture[str]) -> None:
    recipes()
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:] if not line.startswith(" ")]
    assert [name for name, _ in completing.recipes("") if not name.endswith(".toml")] == sorted(listed[:-1])


def test_no_name_is_proposed_that_prepare_does_not_know() -> None:
    from daybreak.data import corpora

    assert sorted(name for name, _ in completing.sources("")) == sorted(corpora._NAMED)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command as a shell finds it."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "daybreak").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m daybreak "$@"\n')
    (folder / "daybreak").chmod(0o755)
    return folder


# What each shell does when somebody presses the tabulator behind `daybreak train gpt2-m`; zsh's own needs a terminal.
PRESSED = {
    "bash": 'COMP_WORDS=(daybreak train gpt2-m); COMP_CWORD=2; _daybreak_completion daybreak; echo "$COMPREPLY"',
    "fish": "complete -C 'daybreak train gpt2-m'",
    "zsh": "_arguments() { print -r -- $@ }; words=(daybreak train gpt2-m); CURRENT=3; _daybreak_completion",
}


@pytest.mark.parametrize("shell", PRESSED)
def test_the_script_that_is_shown_works_in_its_shell(shell: str, program: Path, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    before = "compdef() { }; " if shell == "zsh" else ""
    line = f"daybreak --show-completion >script; {before}source ./script; {PRESSED[shell]}"
    env = os.environ | {"PATH": f"{program}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run([shell, "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert "gpt2-medium" in done.stdout, done.stderr


def test_completion_is_installed_for_the_shell_that_asks(program: Path, tmp_path: Path) -> None:
    env = os.environ | {"PATH": f"{program}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    line = f"{sys.executable} -m daybreak --install-completion; true"  # however it is called
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert "bash completion installed" in done.stdout, done.stderr
    line = f"source ~/.bashrc; {PRESSED['bash']}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "gpt2-medium", done.stderr


def test_a_shell_waits_less_than_half_a_second() -> None:
    """In seconds of a core, so that neighbours on the machine do not count; nearly all of it is Python and typer."""
    env = os.environ | {"_DAYBREAK_COMPLETE": "complete_bash", "COMP_WORDS": "daybreak train ", "COMP_CWORD": "2"}
    child = subprocess.Popen([sys.executable, "-m", "daybreak"], env=env, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    assert used.ru_utime + used.ru_stime < 0.5
