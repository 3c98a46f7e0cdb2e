"""Fixtures of the tests with several ranks."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from rank_driver import fingerprints
from rank_processes import RECIPE, ROWS, STEPS, Launcher

from daybreak import Recipe, train
from daybreak.data.batches import Batches
from daybreak.data.order import Order
from daybreak.data.shards import Corpus
from daybreak.data.windows import StreamWindows
from daybreak.run import Run


@pytest.fixture(scope="session")
def ranks_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for all processes that pytest-xdist runs tests in, so that what one has run the others find."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "ranks"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def ranks_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="session")
def launcher(ranks_folder: Path, ranks_recipe: Path, corpus: Corpus) -> Iterator[Launcher]:
    launcher = Launcher(ranks_folder, ranks_recipe, corpus.path)
    yield launcher
    launcher.close()


@pytest.fixture(scope="session")
def alone(ranks_recipe: Path, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """The same recipe on one rank, in this process: what all else is compared with."""
    made: dict[tuple[str, ...], Run] = {}

    def train_alone(*overrides: str) -> Run:
        if overrides not in made:
            recipe = Recipe.load(ranks_recipe, *overrides)
            made[overrides] = train(recipe, data=corpus.path, out=tmp_path_factory.mktemp("alone") / "run")
        return made[overrides]

    return train_alone


@pytest.fixture(scope="session")
def rows_of_steps(corpus: Corpus) -> dict[int, list[int]]:
    """What the rows of each step are, by its place, without any rank or micro-batch."""
    windows = StreamWindows(corpus.stream("train"), 16)
    batches = Batches(
        windows,
        Order(len(windows), 5),
        length=16,
        windows_per_step=ROWS,
        micro_batch=ROWS,
        seed=5,
        device=torch.device("cpu"),
    )
    rows = {place: fingerprints(next(batches.step(place))) for place in range(0, ROWS * STEPS, ROWS)}
    batches.close()
    return rows
