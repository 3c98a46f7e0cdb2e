"""The one dial, on machines whose speed is made up: the choice is the lowest of all expected losses, sought by hand."""

import math
from dataclasses import replace

import pytest

from daybreak.data.shards import Corpus
from daybreak.errors import UserError
from daybreak.planning import dial
from daybreak.planning.course import Pace
from daybreak.planning.dial import choose_depth
from daybreak.planning.expectation import by_law
from daybreak.recipe import Recipe
from daybreak.scaling import LossLaw, n_of
from daybreak.training.flops import flops_per_token


@pytest.fixture
def corpus(corpus: Corpus) -> Corpus:
    """Much text, as far as its manifest goes."""
    return replace(corpus, train=replace(corpus.train, tokens=10**13, bytes=10**13))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 TFLOP/s for every depth; models of more than 12 layers do not fit."""

    def measured(recipe: Recipe, corpus: Corpus) -> Pace:
        if recipe.model.layers > 12:
            raise UserError("the model takes more memory than there is")
        step = flops_per_token(recipe.model, recipe.row_length) * recipe.batch.tokens / 1e13
        return Pace(start=1.0, step=step, evaluation=0.0, sample=0.0, save=0.0)

    monkeypatch.setattr(dial, "_measured", measured)
    monkeypatch.setattr(dial, "peak_flops", lambda device, precision: 3e13)


@pytest.mark.parametrize("budget", ["20s", "10m", "5h"])
def test_a_time_takes_the_lowest_loss_of_all_depths(corpus: Corpus, machine: None, budget: str) -> None:
    choice = choose_depth(corpus, f"budget={budget}")
    seconds = choice.recipe.budget_seconds
    assert seconds is not None
    losses = {}
    for depth in range(1, 13):
        recipe = Recipe.load(f"daybreak-d{depth}", "model.vocab_size=320", "data.tokenizer=bytes")
        tokens = 1e13 * (seconds - 1) / flops_per_token(recipe.model, recipe.row_length)
        losses[depth] = by_law(recipe, tokens, corpus).loss
    best = min(losses, key=lambda depth: losses[depth])
    assert choice.chosen.depth == best
    assert choice.chosen.loss == pytest.approx(losses[best], abs=0.02)


def test_the_choice_is_shown_between_its_neighbours(corpus: Corpus, machine: None) -> None:
    choice = choose_depth(corpus, "budget=10m")
    depth = choice.chosen.depth
    assert 1 < depth < 12
    assert [each.depth for each in choice.neighbours] == [depth - 1, depth + 1]
    assert all(each.loss > choice.chosen.loss for each in choice.neighbours)
    head, *lines = str(choice).splitlines()
    assert "expected loss" in head
    assert [line.split()[0] for line in lines] == [f"daybreak-d{each}" for each in (depth - 1, depth, depth + 1)]
    assert "<- chosen" in lines[1]
    assert "too small" in lines[0]
    assert "too few for its size" in lines[2]


def test_what_does_not_fit_is_not_taken(corpus: Corpus, machine: None) -> None:
    choice = choose_depth(corpus, "budget=9000h")
    assert choice.chosen.depth == 12
    assert "does not fit into memory" in str(choice)


def test_flops_need_no_measuring(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "_measured", lambda recipe, corpus: pytest.fail("it was measured"))
    choice = choose_depth(corpus, "budget=1e17 flops")
    assert choice.chosen.tokens_per_second is None
    assert all(each.loss > choice.chosen.loss for each in choice.neighbours)
    assert choice.recipe.batch.tokens == 32768


def test_tokens_take_the_depth_they_are_best_spent_on(corpus: Corpus, machine: None) -> None:
    choice = choose_depth(corpus, "budget=300M tokens")
    law = LossLaw.fitted()

    def off(depth: int) -> float:
        recipe = Recipe.load(f"daybreak-d{depth}", "model.vocab_size=320")
        return abs(math.log(law.best_tokens(n_of(recipe.model, recipe.row_length)) / 300e6))

    assert choice.chosen.depth == min(range(1, 20), key=off)


def test_what_a_person_sets_stays(corpus: Corpus, machine: None) -> None:
    recipe = choose_depth(corpus, "budget=10m", "batch.tokens=1024", "seed=7").recipe
    assert (recipe.batch.tokens, recipe.seed, recipe.data.tokenizer) == (1024, 7, "bytes")
    assert recipe.model.vocab_size >= corpus.tokenizer.vocab_size


def test_a_budget_too_small_names_one_that_is_not(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace(start=4.0, step=1.0, evaluation=1.0, sample=0.0, save=1.0)
    monkeypatch.setattr(dial, "_measured", lambda recipe, corpus: pace)
    with pytest.raises(UserError, match=r"20s is too small.* the smallest that is of use here is 1m 02s"):
        choose_depth(corpus, "budget=20s")
    chosen = choose_depth(corpus, "budget=63s").chosen
    assert chosen.course.steps >= 50
    with pytest.raises(UserError, match="204,800 tokens"):
        choose_depth(corpus, "budget=20 steps")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), "say what the run may spend"),
        (("budget=20x params",), "suits every depth"),
        (("budget=$5",), "needs price"),
        (("budget=nonsense",), "budget"),
    ],
)
def test_a_budget_that_decides_nothing_is_refused(corpus: Corpus, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose_depth(corpus, *overrides)


def test_a_real_machine_is_measured(corpus: Corpus) -> None:
    recipe = Recipe.load("daybreak-d1", "model.vocab_size=320", "data.tokenizer=bytes", "execution.threads=1")
    pace = dial._measured(recipe, corpus)
    assert 0.001 < pace.step < 60
    assert pace.evaluation == pytest.approx(pace.step / 3 * recipe.evaluation.tokens / recipe.batch.tokens)


def test_little_text_takes_no_giant(corpus: Corpus, machine: None) -> None:
    little = replace(corpus, train=replace(corpus.train, tokens=10**6, bytes=10**6))
    assert choose_depth(little, "budget=5h").chosen.depth < choose_depth(corpus, "budget=5h").chosen.depth
