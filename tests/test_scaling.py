"""The law of losses, against its own closed forms and against the paper's."""

import json
import math
from importlib.resources import files
from pathlib import Path

import pytest

from daybreak.recipe import Recipe
from daybreak.scaling import LossLaw, loss_of_repeats, n_of
from daybreak.training.flops import flops_per_token

FIT = Path(__file__).parents[1] / "fit" / "results"
# Hoffmann et al. 2022, approach 3, as they print it (E, A, B, alpha, beta).
CHINCHILLA = LossLaw(
    irreducible=1.69, a=406.4, alpha=0.34, b=410.7, beta=0.28, residual=0.01, least_flops=1e18, most_flops=1e22,
    text="", tokenizer="", bytes_per_token=4.0,
)  # fmt: skip


def test_chinchilla_comes_out_as_printed() -> None:
    """70 B parameters and 1.4 T tokens: 1.936 by the printed constants."""
    assert CHINCHILLA.loss(70e9, 1.4e12) == pytest.approx(1.69 + 406.4 / 70e9**0.34 + 410.7 / 1.4e12**0.28, abs=1e-12)
    assert CHINCHILLA.loss(70e9, 1.4e12) == pytest.approx(1.936, abs=0.002)


def test_no_other_n_is_better_for_the_same_flops() -> None:
    for flops in (1e19, 1e21):
        best = CHINCHILLA.best_n(flops)
        lowest = CHINCHILLA.loss(best, flops / 6 / best)
        for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0):
            n = factor * best
            assert CHINCHILLA.loss(n, flops / 6 / n) > lowest


def test_the_best_n_and_the_best_tokens_are_two_ways_to_say_one_thing() -> None:
    for flops in (1e18, 1e20, 1e22):
        n = CHINCHILLA.best_n(flops)
        assert 6 * n * CHINCHILLA.best_tokens(n) == pytest.approx(flops, rel=1e-9)
        assert CHINCHILLA.best_n_for(CHINCHILLA.best_tokens(n)) == pytest.approx(n, rel=1e-9)


def test_the_band_widens_outside_of_what_was_fitted() -> None:
    n = 1e9
    inside, beyond = (CHINCHILLA.band(n, flops / 6 / n) for flops in (1e20, 1e22 * math.e))
    assert inside == pytest.approx(0.02)
    assert beyond == pytest.approx(0.04)


def test_repeated_tokens_are_worth_less() -> None:
    """Muennighoff et al.: up to four epochs nearly as good as new, forty next to nothing more than twenty."""
    n, unique = CHINCHILLA.best_n_for(1e9), 1e9

    def loss(epochs: float) -> float:
        return loss_of_repeats(CHINCHILLA, n, epochs * unique, unique)

    assert loss(0.5) == CHINCHILLA.loss(n, 0.5e9)
    assert loss(1) == CHINCHILLA.loss(n, 1e9)
    assert loss(4) == pytest.approx(CHINCHILLA.loss(n, 4e9), abs=0.02)
    assert loss(1e6) == pytest.approx(CHINCHILLA.loss(n, 16.39e9))
    assert loss(20) - loss(100) < 0.2 * (loss(1) - loss(20))


@pytest.mark.parametrize("times", [0.1, 1, 10, 100])
def test_the_first_repeat_makes_no_jump(times: float) -> None:
    n, unique = times * CHINCHILLA.best_n_for(1e9), 1e9
    before, behind = (loss_of_repeats(CHINCHILLA, n, share * unique, unique) for share in (1, 1.0001))
    assert behind == pytest.approx(before, abs=1e-4)
    losses = [loss_of_repeats(CHINCHILLA, n, epochs * unique, unique) for epochs in (0.5, 1)]
    assert losses[1] < losses[0]


def test_parameters_beyond_what_unique_tokens_feed_are_worth_less() -> None:
    n, unique = CHINCHILLA.best_n_for(1e9), 1e9
    ends = CHINCHILLA.loss(6.31 * n, 16.39e9)
    assert loss_of_repeats(CHINCHILLA, 1e6 * n, 1e6 * unique, unique) == pytest.approx(ends)
    assert loss_of_repeats(CHINCHILLA, 0.5 * n, 16.39e15, unique) == pytest.approx(CHINCHILLA.loss(0.5 * n, 16.39e9))


def test_n_is_a_sixth_of_the_flops_a_token() -> None:
    recipe = Recipe.load("daybreak-d3")
    assert 6 * n_of(recipe.model, 256) == flops_per_token(recipe.model, 256)


def test_the_law_that_ships_is_one() -> None:
    law = LossLaw.fitted()
    assert 0 < law.alpha < 1
    assert 0 < law.beta < 1
    assert law.irreducible > 0
    assert law.most_flops > law.least_flops
    assert 0 < law.residual < 0.1
    assert law.loss(1e6, 1e7) < law.loss(1e6, 1e6)


def test_the_law_that_ships_is_that_of_the_runs_that_ship() -> None:
    records = [json.loads(line) for line in (FIT / "runs.jsonl").read_text(encoding="utf-8").splitlines()]
    enough = [each for each in records if each["kind"] == "grid" and each["steps"] >= 50]
    document = json.loads(files("daybreak").joinpath("laws.json").read_text(encoding="utf-8"))
    law = LossLaw.fitted()
    assert document["runs"] == len(enough)
    errors = [law.loss(each["flops_per_token"] / 6, each["tokens"]) - each["loss"] for each in enough]
    assert sum(map(abs, errors)) / len(errors) < law.residual
    assert {each["flops_per_token"] for each in enough if each["depth"] == 3} == {flops_of("daybreak-d3")}
    text = json.loads((FIT / "text.json").read_text(encoding="utf-8"))
    assert (law.text, law.tokenizer, law.bytes_per_token) == tuple(text.values())


def flops_of(name: str) -> float:
    recipe = Recipe.load(name)
    return flops_per_token(recipe.model, recipe.row_length)
