"""What would be published: its metadata, what the archives hold, and the wheel in an environment of its own."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

import daybreak

ROOT = Path(__file__).parents[2]


def project() -> dict[str, Any]:
    content: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return content


def run(*words: str | Path, cwd: Path, **environment: str) -> str:
    """Standard output of a command that must succeed; nothing of this checkout or its environment leaks into it."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")} | environment
    done = subprocess.run([str(word) for word in words], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_one_version_in_all_places() -> None:
    released = re.findall(r"^## \[(\d\S*)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert released[0][0] == daybreak.__version__ == citation["version"]
    assert date.fromisoformat(released[0][1]) == citation["date-released"]
    assert citation["title"] == "Daybreak"
    assert citation["license"] == project()["license"]
    assert [each["name"] for each in citation["authors"]] == [each["name"] for each in project()["authors"]]


def test_torch_is_bounded_as_the_readme_says() -> None:
    """Above the upper bound an installer takes a build with gigabytes of CUDA, and nothing here was tried with it."""
    (torch,) = (each for each in project()["dependencies"] if each.startswith("torch"))
    assert re.fullmatch(r"torch>=2\.11,<2\.14", torch)
    pinned = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert pinned is not None
    assert pinned[1].startswith("2.13.")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.mark.slow
def test_archives_hold_what_they_should_and_no_more(built: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *sorted(built.iterdir()), cwd=built)
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    package = ROOT / "src" / "daybreak"
    ours = {
        f"daybreak/{path.relative_to(package)}"
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    assert {name for name in held if not name.startswith("daybreak-")} == ours
    assert {"daybreak/py.typed", "daybreak/recipes/gpt2.toml", "daybreak/laws.json"} <= held
    assert any(name.endswith("licenses/LICENSE") for name in held)

    tracked = set(run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines())
    not_published = {name for name in tracked if name.startswith((".ci/", "."))} - {
        *(".dockerignore", ".gitignore", ".pre-commit-config.yaml")
    }
    with tarfile.open(source) as archive:
        names = {member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile()}
    assert names - {"PKG-INFO"} == tracked - not_published


@pytest.mark.slow
def test_the_wheel_trains_in_an_empty_environment(built: Path, tmp_path: Path) -> None:
    """With torch and its own dependencies alone, and nothing of this checkout."""
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python, command = tmp_path / "venv" / "bin" / "python", tmp_path / "venv" / "bin" / "daybreak"
    constraints = ("--constraint", ROOT / "constraints.txt")
    run(python, "-m", "pip", "install", "--quiet", *constraints, "torch", cwd=tmp_path)
    run(python, "-m", "pip", "install", "--quiet", *constraints, next(built.glob("*.whl")), cwd=tmp_path)
    assert str(tmp_path) in run(python, "-c", "import daybreak; print(daybreak.__file__)", cwd=tmp_path)
    assert "Usage" in run(command, "--help", cwd=tmp_path)
    (tmp_path / "text.txt").write_text("\n".join(f"{number} bottles of beer on the wall" for number in range(2000)))
    run(command, "prepare", "text.txt", "--tokenizer", "bytes", "--out", "corpus", cwd=tmp_path)
    small = ("data.tokenizer=bytes", "model.vocab_size=257", "model.layers=1", "model.dim=32", "batch.tokens=512")
    words = ("train", "gpt2-tiny", *small, "budget=5steps", "--data", "corpus", "--out", "run")
    run(command, *words, cwd=tmp_path, OMP_NUM_THREADS="1")
    assert "bottle" in run(command, "sample", "run", "7 bottle", "--tokens", "5", cwd=tmp_path)
    assert "all as they were written" in run(command, "verify", "run", cwd=tmp_path)
