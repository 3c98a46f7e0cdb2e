"""Two ranks read a mixture as one does: the same windows, each on one rank, and the same losses."""

import random
from contextlib import closing
from pathlib import Path

import pytest
import torch
from rank_driver import fingerprints
from rank_processes import ROWS, STEPS, Launcher, RanksRun, Sitting

from daybreak import Recipe, train
from daybreak.data.batches import Batches
from daybreak.data.prepare import prepare
from daybreak.data.reading import Reading

MIXTURE = "data.mixture=[{ corpus = 'a' }, { corpus = 'b', epochs = 0.5 }]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two corpora of 33 and 34 windows: a pass of 50 ends inside the fifth step."""
    path = tmp_path_factory.mktemp("mixture")
    for name, characters in (("a", 600), ("b", 610)):
        (path / f"{name}.txt").write_text("".join(random.Random(name).choices("abcdefgh ", k=characters)))
        prepare([str(path / f"{name}.txt")], path / name, tokenizer="bytes")
    return path


def test_two_ranks_see_the_windows_of_one(launcher: Launcher, ranks_recipe: Path, folder: Path, tmp_path: Path) -> None:
    with launcher.started(Sitting(2, (MIXTURE,)), tmp_path / "ranks", tmp_path / "run", data=folder) as ranks:
        assert [rank.code for rank in ranks] == [0, 0]
    run = RanksRun(tmp_path / "run", (tuple(ranks),))
    recipe = Recipe.load(ranks_recipe, MIXTURE).with_data(folder)
    reading = Reading.open(recipe.data)
    assert reading.pass_windows == 50
    batches = Batches(
        reading.windows,
        reading.order(recipe.seed),
        length=16,
        windows_per_step=ROWS,
        micro_batch=ROWS,
        seed=recipe.seed,
        device=torch.device("cpu"),
    )
    with closing(batches):
        expected = {place: fingerprints(next(batches.step(place))) for place in range(0, ROWS * STEPS, ROWS)}
    assert run.rows == expected

    one = train(recipe, out=tmp_path / "one")
    assert run.column("loss") == pytest.approx([record["loss"] for record in one.metrics()], rel=1e-5)
    measured = [record["sources"] for record in one.metrics("validation")]
    assert [set(sources) for sources in measured] == [{"a", "b"}] * 4
    for ours, theirs in zip(run.column("sources", "validation"), measured, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)
