"""What is said of a folder that is not what was asked for."""

from pathlib import Path

import pytest

from daybreak.folders import is_a, is_no


def make(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()


def test_a_checkpoint_is_no_corpus_though_it_has_a_manifest(tmp_path: Path) -> None:
    make(tmp_path, "corpus/manifest.json", "run/checkpoints/step-1/manifest.json", "run/checkpoints/step-1/state.json")
    assert is_a("corpus", tmp_path / "corpus")
    assert not is_a("corpus", tmp_path / "run" / "checkpoints" / "step-1")


def test_what_lies_in_a_folder_goes_before_what_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(is_no(Path("a"), "run")) == "a is not a run: there is no such folder; daybreak train makes one"
    assert str(is_no(Path("a"), "run", "corpus")).endswith("daybreak train and daybreak prepare make them")
    make(tmp_path, "runs/usual/recipe.toml")
    assert str(is_no(Path("a"), "run")).endswith("; there is runs/usual, and daybreak train makes one")
    make(tmp_path, "shelf/beside/recipe.toml")
    assert str(is_no(Path("shelf/a"), "run")).endswith("; there is shelf/beside, and daybreak train makes one")
    make(tmp_path, "shelf/a/within/recipe.toml", "shelf/a/also/recipe.toml")
    assert str(is_no(Path("shelf/a"), "run")).endswith(
        "; there are shelf/a/also, shelf/a/within, and daybreak train makes one"
    )


def test_of_many_the_five_with_the_likest_names_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, *(f"runs/other-{number}/recipe.toml" for number in range(9)), "runs/rotary/recipe.toml")
    said = str(is_no(Path("runs/rotray"), "run"))
    assert said.split("there are ")[1].startswith("runs/rotary, ")
    assert said.count("runs/") == 6
