"""What a rank needs under FSDP2, counted on tensors without content, is what ranks that really train come to."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from daybreak import Recipe
from daybreak.model.gpt import count_parameters

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fsdp_memory.py"


@pytest.fixture(scope="module")
def accounting() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fsdp_memory", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_two_ranks_need_what_was_counted_without_running(accounting: ModuleType) -> None:
    recipe = Recipe.load("gpt-star-127m", *accounting.CHECKED)
    paper, real = (count(recipe, 2, 2) for count in (accounting.on_paper, accounting.for_real))
    for part in ("model", "state", "peak"):
        assert paper[part] == pytest.approx(real[part], rel=0.15), part


def test_what_is_kept_is_three_numbers_a_parameter_shared_among_ranks(accounting: ModuleType) -> None:
    """Weight and two moments in fp32; by hand, not by counting tensors."""
    recipe = Recipe.load("gpt2-tiny", *accounting.CHECKED)
    for ranks in (1, 4):
        state = accounting.on_paper(recipe, ranks, 1)["state"]
        assert state == pytest.approx(12 * count_parameters(recipe.model) / ranks, rel=0.02)


@pytest.mark.slow
def test_the_largest_gpt_star_fits_where_one_rank_alone_would_not(accounting: ModuleType) -> None:
    recipe = Recipe.load("gpt-star-1b", "optimizer.kind=adamw", "optimizer.lr=2e-4")
    peaks = [accounting.on_paper(recipe, ranks, 1)["peak"] for ranks in (1, 8)]
    assert peaks[0] > 16e9  # a GPU of 16 GB is too small
    assert peaks[1] < 8e9  # eight of 8 GB are not
