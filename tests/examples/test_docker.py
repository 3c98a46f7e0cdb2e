"""The image: linted everywhere, built where a Docker engine is."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def instructions() -> list[list[str]]:
    """Of the Dockerfile, a list of words each."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    return [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_hadolint_has_nothing_to_say() -> None:
    subprocess.run([Path(sys.executable).with_name("hadolint"), ROOT / "Dockerfile"], check=True)


def test_what_is_copied_is_there_and_nothing_else_is_sent() -> None:
    copied = [name for name, *words in instructions() if name == "COPY" for name in words[:-1]]
    assert all((ROOT / name).exists() for name in copied)
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    assert sorted(line[1:] for line in ignored if line.startswith("!")) == sorted(copied)
    assert "*" in ignored


def test_make_passes_on_which_torch() -> None:
    alone = {
        name: value for name, value in os.environ.items() if not name.startswith("MAKE")
    }  # not as make's own child
    command = ["make", "--dry-run", "docker", "TORCH=cu130"]
    said = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["docker", "build", "--build-arg", "TORCH=cu130", "--tag", "daybreak:cu130", "."]
    assert ["ARG", "TORCH=cpu"] in instructions()


@pytest.mark.slow
def test_it_builds_and_runs(tmp_path: Path) -> None:
    engine = shutil.which("docker")
    if engine is None or subprocess.run([engine, "info"], capture_output=True, check=False).returncode:
        pytest.skip("there is no Docker engine here")
    subprocess.run(["make", "docker"], cwd=ROOT, check=True)
    container = (engine, "run", "--rm", "--volume", f"{tmp_path}:/work", "--user", "0", "daybreak:cpu")
    subprocess.run([*container, "demo", "--minutes", "0.2"], check=True)
    assert (tmp_path / "runs" / "demo" / "finished.json").exists()
