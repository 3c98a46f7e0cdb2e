"""Runs and exported models that released versions made are read by this one, and go on as they would have."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from daybreak import Recipe, __version__, load, train
from daybreak.errors import UserError
from daybreak.exchange.check import model_of
from daybreak.exchange.read import read_folder
from daybreak.files import read_sealed, write_sealed
from daybreak.run import Run
from daybreak.sampling.settings import SamplingConfig

FROZEN = Path(__file__).parent / "frozen"
VERSIONS = sorted(path.name for path in FROZEN.iterdir() if (path / "expected.json").is_file())
SHAPES = ("plain", "modern")
versions = pytest.mark.parametrize("version", VERSIONS)
shapes = pytest.mark.parametrize("shape", SHAPES)


def expected(version: str, shape: str) -> dict[str, Any]:
    return json.loads((FROZEN / version / "expected.json").read_text())[shape]


def copied(version: str, shape: str, folder: Path) -> Path:
    """A run may write into its folder; the frozen one stays as it is."""
    return Path(shutil.copytree(FROZEN / version / shape, folder / "run"))


def next_logits(model: Any, run: Run) -> torch.Tensor:
    with torch.no_grad():
        return model.next_logits(torch.tensor([run.tokenizer.encode("the cat").tolist()]))[0]


def test_this_version_is_frozen() -> None:
    assert "0.1.0" in VERSIONS
    assert "dev" in __version__ or __version__ in VERSIONS, "before a release: make frozen"


@versions
@shapes
def test_a_frozen_run_loads_samples_and_evaluates_as_it_did(version: str, shape: str) -> None:
    run, was = load(FROZEN / version / shape), expected(version, shape)
    assert (run.spent.steps, run.finished) == (was["steps"], True)
    assert run.final_loss == pytest.approx(was["final_loss"], rel=1e-6)
    assert run.evaluate(FROZEN / version / "corpus").loss == pytest.approx(was["loss"], rel=1e-5)
    assert run.sample("the ", tokens=8, sampling=SamplingConfig(greedy=True))[0].text == was["text"]
    assert torch.allclose(next_logits(run.model, run), torch.tensor(was["logits"]), atol=1e-5)


@versions
@shapes
def test_a_frozen_run_goes_on_to_the_loss_it_had(version: str, shape: str, tmp_path: Path) -> None:
    """From its checkpoint half way: weights, moments, order and schedule are those that were saved."""
    path = copied(version, shape, tmp_path)
    (path / "finished.json").unlink()
    *_, half, last = sorted((path / "checkpoints").iterdir())
    assert half.name < last.name
    shutil.rmtree(last)
    run = train(Recipe.load(path / "recipe.toml"), data=FROZEN / version / "corpus", out=path)
    assert run.final_loss == pytest.approx(expected(version, shape)["final_loss"], rel=1e-4)


@versions
@shapes
def test_a_frozen_export_comes_in(version: str, shape: str) -> None:
    run = load(FROZEN / version / shape)
    read = read_folder(FROZEN / version / f"{shape}-exported", "hf:there")
    assert (read.config, read.tokenizer.identity) == (run.recipe.model, run.tokenizer.identity)
    logits = next_logits(model_of(read.config, read.weights), run)
    assert torch.allclose(logits, torch.tensor(expected(version, shape)["logits"]), atol=1e-5)


@versions
@pytest.mark.parametrize("file", ["identity.json", "checkpoints/step-00000008/manifest.json"])
def test_a_run_in_a_format_of_the_future_is_refused(version: str, file: str, tmp_path: Path) -> None:
    path = copied(version, "plain", tmp_path)
    for each in path.glob(file.replace("00000008", "*")):
        write_sealed(each, {**read_sealed(each), "format": 99})
    with pytest.raises(UserError, match=r"format 99 is not known here|every checkpoint .* is damaged"):
        load(path)
