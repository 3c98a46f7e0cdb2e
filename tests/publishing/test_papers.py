"""What stands beside the code for whoever contributes: it speaks of what is there."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_contributing_names_only_what_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"`?make ([a-z-]+)", text)) <= set(targets) | {"test"}
    for path in re.findall(r"\]\(([^)]+)\)", text) + re.findall(r"`((?:src|tests|docs)/[\w./]*)`", text):
        assert (ROOT / path).exists(), path
    for file in ("run.py", "compose.py", "errors.py", "files.py", "cli/completing.py", "cli/__init__.py"):
        assert (ROOT / "src" / "daybreak" / file).exists()


def test_before_a_commit_the_same_is_checked_as_by_make() -> None:
    config = ROOT / ".pre-commit-config.yaml"
    subprocess.run([Path(sys.executable).with_name("pre-commit"), "validate-config", config], check=True)
    (local,) = yaml.safe_load(config.read_text())["repos"]
    entries = [hook["entry"] for hook in local["hooks"] if hook["language"] == "system"]
    commands = [entry.removeprefix(".venv/bin/").replace(" --force-exclude", "") for entry in entries]
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert recipe is not None
    by_make = [line.strip().removeprefix("$(BIN)/").removesuffix(" .") for line in recipe[1].splitlines()]
    assert commands == by_make


def test_the_licence_is_the_one_that_is_declared() -> None:
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n")
    assert 'license = "MIT"' in (ROOT / "pyproject.toml").read_text()
