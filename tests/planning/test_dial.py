"""The one dial, on machines whose speed is made up: the choice is the lowest of all expected losses, sought by hand."""

import math
from dataclasses import replace

import pytest

from daybreak.bench.subject import Timing
from daybreak.data.shards import Corpus
from daybreak.errors import UserError
from daybreak.planning import dial
from daybreak.planning.dial import Choice, choose_depth, shown
from daybreak.planning.expectation import by_law
from daybreak.recipe import Recipe
from daybreak.scaling import LossLaw, n_of
from daybreak.training.flops import flops_per_token

STEPS_ALONE = ("counts=train",)


@pytest.fixture
def corpus(corpus: Corpus) -> Corpus:
    """Much text, as far as its manifest goes."""
    return replace(corpus, train=replace(corpus.train, tokens=10**13, bytes=34 * 10**12))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 TFLOP/s for every depth, and no time for anything but steps."""

    def measured(recipe: Recipe, corpus: Corpus) -> float:
        return flops_per_token(recipe.model, recipe.row_length) * recipe.batch.tokens / 1e13

    monkeypatch.setattr(dial, "_seconds_of_a_step", measured)
    monkeypatch.setattr(dial, "_START_SECONDS", 0.0)
    monkeypatch.setattr(dial, "peak_flops", lambda device, precision: 3e13)


def tokens(choice: Choice) -> int:
    assert choice.chosen.course is not None
    return choice.chosen.course.tokens


@pytest.mark.parametrize("budget", ["20s", "10m", "5h"])
def test_a_time_takes_the_lowest_loss_of_all_depths(corpus: Corpus, machine: None, budget: str) -> None:
    choice = choose_depth(corpus, f"budget={budget}", *STEPS_ALONE)
    seconds = choice.recipe.budget_seconds
    assert seconds is not None
    losses = {}
    for depth in range(1, 13):
        recipe = Recipe.load(f"daybreak-d{depth}", "model.vocab_size=320", "data.tokenizer=bytes")
        read = 1e13 * seconds / flops_per_token(recipe.model, recipe.row_length)
        losses[depth] = by_law(recipe, read, corpus).loss
    best = min(losses, key=lambda depth: (round(losses[depth], 3), depth))
    assert choice.chosen.depth == best
    assert choice.chosen.loss == pytest.approx(losses[best], abs=0.02)


def test_the_choice_is_shown_between_its_neighbours(corpus: Corpus, machine: None) -> None:
    choice = choose_depth(corpus, "budget=10m")
    depth = choice.chosen.depth
    assert 1 < depth < 12
    assert [each.depth for each in choice.neighbours] == [depth - 1, depth + 1]
    assert all(each.loss > choice.chosen.loss for each in choice.neighbours)
    head, *lines = shown(choice).splitlines()
    assert "expected loss" in head
    assert [line.split()[0] for line in lines] == [f"daybreak-d{each}" for each in (depth - 1, depth, depth + 1)]
    assert "<- chosen" in lines[1]
    assert "too small" in lines[0]
    assert "too few for its size" in lines[2]


def test_what_does_not_fit_is_not_taken(corpus: Corpus, machine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_depth(corpus, "budget=5h").chosen.depth > 3
    measured = dial._seconds_of_a_step
    monkeypatch.setattr(
        dial,
        "_seconds_of_a_step",
        lambda recipe, corpus: measured(recipe, corpus) if recipe.model.layers <= 3 else None,
    )
    choice = choose_depth(corpus, "budget=5h")
    assert choice.chosen.depth == 3
    assert "does not fit into memory" in shown(choice)
    monkeypatch.setattr(dial, "_seconds_of_a_step", lambda recipe, corpus: None)
    with pytest.raises(UserError, match="not even daybreak-d1 fits"):
        choose_depth(corpus, "budget=1h")


def test_flops_need_no_measuring(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "_seconds_of_a_step", lambda recipe, corpus: pytest.fail("it was measured"))
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
    monkeypatch.setattr(dial, "_seconds_of_a_step", lambda recipe, corpus: 1.0)
    with pytest.raises(
        UserError, match=r"20s is too small.*daybreak-d1 would make .* steps; the smallest.* is (.*)"
    ) as e:
        choose_depth(corpus, "budget=20s")
    smallest = str(e.value).rpartition(" ")[2]
    chosen = choose_depth(corpus, f"budget={smallest}").chosen
    assert chosen.course is not None
    assert chosen.course.steps >= 50
    with pytest.raises(UserError, match="is 50 steps"):
        choose_depth(corpus, "budget=20 steps")
    with pytest.raises(UserError, match="is 204800 tokens"):
        choose_depth(corpus, "budget=20000 tokens")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), "say what the run may spend"),
        (("budget=20x params",), "suits every depth"),
        (("budget=$5",), "needs price"),
        (("budget=nonsense",), "budget"),
        (("budget=1h", "model.layers=3"), "auto chooses model.layers"),
    ],
)
def test_a_budget_that_decides_nothing_is_refused(corpus: Corpus, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose_depth(corpus, *overrides)


def test_a_real_machine_is_measured(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the batch takes the gradient twice, and the update once."""
    small = ("model.vocab_size=320", "data.tokenizer=bytes", "execution.threads=1", "execution.micro_batch=1")
    monkeypatch.setattr("daybreak.bench.subject.Subject.time", lambda subject, rows: Timing(0.5, 2.0))
    for batch, seconds in (("batch.tokens=1024", 4.0), ("batch.tokens=2048", 6.0)):
        assert dial._seconds_of_a_step(Recipe.load("daybreak-d1", *small, batch), corpus) == pytest.approx(seconds)
    monkeypatch.undo()
    few, many = (
        dial._seconds_of_a_step(Recipe.load("daybreak-d1", *small, f"batch.tokens={tokens}"), corpus)
        for tokens in (256, 65536)
    )
    assert few is not None
    assert many is not None
    assert 0 < few < many


def test_memory_that_runs_out_while_measuring_is_no_crash(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*_: object) -> None:
        raise MemoryError

    recipe = Recipe.load("daybreak-d1", "model.vocab_size=320", "data.tokenizer=bytes", "execution.threads=1")
    monkeypatch.setattr("daybreak.bench.subject.Subject.time", run_out)
    assert dial._seconds_of_a_step(recipe, corpus) is None


def test_little_text_takes_no_giant(corpus: Corpus, machine: None) -> None:
    little = replace(corpus, train=replace(corpus.train, tokens=10**6, bytes=3_400_000))
    assert choose_depth(little, "budget=5h").chosen.depth < choose_depth(corpus, "budget=5h").chosen.depth
