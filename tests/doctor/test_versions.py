"""Python and the packages."""

import importlib
import importlib.metadata
import tomllib
from pathlib import Path

import pytest

from daybreak.doctor.versions import _REQUIRED, versions


def test_bounds_are_those_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert [f"{package}{bounds}" for package, bounds in _REQUIRED.items()] == project["dependencies"]


@pytest.mark.parametrize(
    ("version", "state"),
    [("2.10.1", "lacking"), ("2.11.0+cpu", "good"), ("2.13.2", "good"), ("2.14", "lacking"), ("3.0", "lacking")],
)
def test_a_torch_that_was_not_tried_is_a_lack(version: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version if name == "torch" else real(name))
    finding = versions()
    assert finding.state == state
    assert f"torch {version}" in finding.found


@pytest.mark.parametrize("error", [ModuleNotFoundError("it is not here"), OSError("libssl.so.3 is missing")])
def test_a_package_that_cannot_be_imported_breaks_all(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def import_module(name: str) -> object:
        if name == "tokenizers":
            raise error
        return real(name)

    monkeypatch.setattr(importlib, "import_module", import_module)
    finding = versions()
    assert finding.state == "broken"
    assert f"tokenizers ({error})" in finding.found
