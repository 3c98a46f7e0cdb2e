"""A study's trials: what they are, how they go on, and what the table says."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from daybreak.data.prepare import prepare
from daybreak.data.shards import Corpus
from daybreak.errors import UserError
from daybreak.executor import Workers
from daybreak.finite import finite
from daybreak.recipe import Recipe
from daybreak.run import train
from daybreak.study.conduct import conduct
from daybreak.study.document import document
from daybreak.study.results import Study, read_study, trial_folder
from daybreak.study.table import shown
from made_study import write_study
from made_text import write_documents

Write = Callable[..., Path]


def losses(study: Study) -> dict[str, dict[int, float]]:
    return {variant.name: study.losses(variant.name) for variant in study.variants}


@pytest.fixture(scope="module")
def made(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study of `write`, whole."""
    folder = tmp_path_factory.mktemp("made")
    return conduct(write_study(folder / "study.toml"), folder / "out", data=corpus.path)


def test_trials_are_what_the_same_recipes_give_by_hand(made: Study, corpus: Corpus, tmp_path: Path) -> None:
    assert made.missing == 0
    recipe = made.recipes["wide"].model_copy(update={"seed": 2})
    by_hand = train(recipe, data=corpus.path, out=tmp_path / "by-hand")
    assert made.losses("wide")[2] == by_hand.final_loss
    trial = made.trials["wide"][2]
    assert (trial.tokens, trial.steps) == (640, 10)
    (comparison, _) = made.comparisons
    base, other = made.losses("base"), made.losses("no-bias")
    assert comparison.difference.by_seed == {seed: other[seed] - base[seed] for seed in (1, 2)}
    assert not (trial_folder(made.path, "wide", 2) / "checkpoints").exists()


def test_a_change_of_nothing_but_last_bits_differs_by_nothing_more(
    write: Write, corpus: Corpus, tmp_path: Path
) -> None:
    file = write(changes="{ chunked = ['execution.loss_rows=8'] }", keep="true")
    study = conduct(file, tmp_path / "out", data=corpus.path)
    (comparison,) = study.comparisons
    assert comparison.verdict == "not shown"
    # The same windows from the same initial values: paired, two seeds differ by far more than the two variants.
    by_seed = study.losses("base")
    assert abs(comparison.difference.mean) < 1e-3 * abs(by_seed[1] - by_seed[2])
    assert (trial_folder(study.path, "chunked", 2) / "checkpoints").exists()


def test_a_study_goes_on_where_it_was_and_ends_alike(made: Study, write: Write, corpus: Corpus, tmp_path: Path) -> None:
    file = write()
    sittings = 0
    while read_missing(tmp_path / "parts") and sittings < 50:
        sittings += 1
        conduct(file, tmp_path / "parts", data=corpus.path, seconds=0.4 * sittings)
    assert sittings > 1
    assert losses(read_study(tmp_path / "parts")) == losses(made)


def read_missing(path: Path) -> int:
    return read_study(path).missing if (path / "study.json").exists() else 1


@pytest.mark.slow
def test_trials_at_once_are_those_one_behind_the_other(
    made: Study, write: Write, corpus: Corpus, tmp_path: Path
) -> None:
    assert losses(conduct(write(), tmp_path / "two", data=corpus.path, workers=Workers(2))) == losses(made)


def test_an_equal_time_is_steps_at_the_measured_speed(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    study = conduct(write(budget='"0.3s"', seeds="1"), tmp_path / "out", data=corpus.path)
    for variant in study.variants:
        (trial,) = study.trials[variant.name].values()
        assert trial.steps == max(1, round(0.3 / study.paces[variant.name].step_seconds))
    assert "as steps at each variant's measured speed" in shown(study)


def test_an_equal_time_by_the_clock_ends_with_the_time(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    ramp = "{ ramp = ['batch.ramp={start=16, over=\"50%\"}'] }"
    with pytest.raises(UserError, match=r'ramp: with batch\.ramp steps grow.*clock = "wall"'):
        conduct(write(budget='"0.3s"', changes=ramp), tmp_path / "paced", data=corpus.path)
    study = conduct(write(budget='"0.3s"', seeds="1", clock='"wall"', changes=ramp), tmp_path / "out", data=corpus.path)
    for trials in study.trials.values():
        assert 0.2 < trials[1].train_seconds < 0.5


def test_each_variant_is_tuned_alike_and_takes_its_best(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    file = write(tune="{ 'optimizer.lr' = [1e-5, 1e-2] }", changes="{ no-bias = ['model.bias=false'] }")
    study = conduct(file, tmp_path / "out", data=corpus.path)
    for variant in ("base", "no-bias"):
        tried = study.tuned[variant]["losses"]
        assert len(tried) == 2
        assert study.tuned[variant]["chosen"] == [min(tried, key=tried.get)]
        recipe = Recipe.load(trial_folder(study.path, variant, 1) / "recipe.toml")
        assert f"optimizer.lr={recipe.optimizer.lr}" == study.tuned[variant]["chosen"][0]
    assert "the best of optimizer.lr=1e-05" in shown(study)


def test_changed_text_is_measured_on_text_that_all_share(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    source = write_documents(tmp_path / "other", seed=9)
    other = prepare([str(source)], tmp_path / "other" / "corpus", tokenizer="bytes")
    file = write(changes=f"{{ other-text = ['data.corpus={other.path}'] }}", validation=f'"{corpus.path}"', keep="true")
    study = conduct(file, tmp_path / "out", data=corpus.path)
    run = train(Recipe.load(trial_folder(study.path, "other-text", 1) / "recipe.toml"),
                out=trial_folder(study.path, "other-text", 1))  # fmt: skip
    assert run.recipe.data.corpus == str(other.path)
    assert study.losses("other-text")[1] != run.final_loss
    assert study.losses("other-text")[1] == pytest.approx(run.evaluate(corpus.path).loss, abs=0.1)


def test_text_of_another_tokenizer_does_not_compare(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    source = write_documents(tmp_path)
    other = prepare([str(source)], tmp_path / "bpe", tokenizer="bpe:257")
    changes = f"{{ words = ['data.corpus={other.path}', 'data.tokenizer=bpe:257'] }}"
    with pytest.raises(UserError, match=r"different tokenizers .*, whose losses do not compare"):
        conduct(write(changes=changes, validation=f'"{corpus.path}"'), tmp_path / "out", data=corpus.path)


def test_a_trial_that_cannot_be_made_leaves_the_others_alone(
    write: Write, corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(changes="{ odd = ['schedule.warmup=30s'] }")  # no time is known where tokens count
    study = conduct(file, tmp_path / "out", data=corpus.path)
    assert "odd, seed 1 failed: schedule.warmup" in capsys.readouterr().err
    assert study.missing == 2
    assert len(study.losses("base")) == 2
    assert "2 trials are missing" in shown(study)


def test_a_verdict_waits_for_all_seeds(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    file = write()
    study = conduct(file, tmp_path / "out", data=corpus.path)
    shutil.rmtree(trial_folder(study.path, "wide", 2))
    assert [each.verdict == "unfinished" for each in read_study(study.path).comparisons] == [False, True]


def test_a_variant_that_the_guard_ends_has_diverged_and_the_study_is_done(
    write: Write, corpus: Corpus, tmp_path: Path
) -> None:
    lines = {"tune": '{ "optimizer.lr" = [3e-3, 1e30] }', "changes": "{ hot = ['guard.most_skipped=1'] }"}
    study = conduct(write(**lines, budget='"1280 tokens"'), tmp_path / "out", data=corpus.path)
    assert study.missing == 0
    assert [study.tuned[name]["chosen"] for name in ("base", "hot")] == [["optimizer.lr=0.003"]] * 2
    assert study.tuned["hot"]["losses"]["optimizer.lr=1e+30"] is None


def test_a_study_that_measured_nothing_yet_may_be_changed(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    conduct(write(budget='"128 tokens"'), tmp_path / "out", data=corpus.path, seconds=1e-6)
    (tmp_path / "out" / "paces.json").unlink()
    study = conduct(write(budget='"192 tokens"'), tmp_path / "out", data=corpus.path, seconds=1e-6)
    assert study.design.budget.amount == 192


def test_speeds_by_which_trials_were_made_are_not_measured_anew(made: Study, corpus: Corpus, tmp_path: Path) -> None:
    shutil.copytree(made.path, tmp_path / "copy")
    (tmp_path / "copy" / "paces.json").unlink()
    with pytest.raises(UserError, match=r"paces\.json is missing, by which the trials"):
        conduct(made.path.with_name("study.toml"), tmp_path / "copy", data=corpus.path)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ({"budget": '"10 tokens"'}, "base: budget = 10 tokens is less than one step"),
        ({"changes": "{ odd = ['model.dims=3'] }"}, r"odd: .*\n.* unknown key model\.dims"),
        ({"tune": "{ 'optimizer.nope' = [1, 2] }"}, r"unknown key optimizer\.nope"),
        ({"changes": "{ words = ['model.vocab_size=100'] }"}, "words: the corpus's tokenizer"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is_measured(
    write: Write, corpus: Corpus, tmp_path: Path, lines: dict[str, str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        conduct(write(**lines), tmp_path / "out", data=corpus.path)
    assert not (tmp_path / "out").exists()


def test_the_folder_of_a_run_is_not_a_studys(write: Write, corpus: Corpus, made: Study) -> None:
    with pytest.raises(UserError, match="is the folder of a run"):
        conduct(write(), trial_folder(made.path, "base", 1), data=corpus.path)


def test_rows_of_another_length_are_said(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    file = write(changes="{ short = ['model.context=8'] }", seeds="1", budget='"128 tokens"')
    study = conduct(file, tmp_path / "out", data=corpus.path)
    assert "short was measured in rows of 8 tokens, base in rows of 16" in shown(study)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ({"seeds": "3"}, r"with seeds \[1, 2\]: more of them, once results are known"),
        ({"budget": '"128 tokens"'}, "holds another study: design, recipes differ"),
        ({"changes": "{ no-bias = ['model.bias=false'] }"}, "holds another study"),
    ],
)
def test_a_folder_holds_one_study(
    write: Write, corpus: Corpus, tmp_path: Path, lines: dict[str, str], said: str
) -> None:
    conduct(write(), tmp_path / "out", data=corpus.path, seconds=1e-6)
    with pytest.raises(UserError, match=said):
        conduct(write(**lines), tmp_path / "out", data=corpus.path)


def test_a_change_that_changes_nothing_is_said(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="same changes nothing: base has these settings already"):
        conduct(write(changes="{ same = ['model.dim=16'] }"), tmp_path / "out", data=corpus.path)


def test_the_document_holds_every_seed_and_is_json(made: Study) -> None:
    content = json.loads(json.dumps(finite(document(made)), allow_nan=False))
    by_name = {variant["name"]: variant for variant in content["variants"]}
    assert {trial["seed"]: trial["loss"] for trial in by_name["wide"]["trials"]} == made.losses("wide")
    assert [each["variant"] for each in content["comparisons"]] == ["no-bias", "wide"]


def test_the_table_shows_the_mean_difference_and_the_verdict(made: Study) -> None:
    rows = {line.split("|")[1].strip(): line for line in shown(made).splitlines() if line.startswith("|")}
    for comparison in made.comparisons:
        row = rows[comparison.variant]
        assert f"{comparison.difference.mean:+.4f}" in row
        assert f"{math.fsum(made.losses(comparison.variant).values()) / 2:.4f}" in row
        assert row.rstrip("| ").endswith(comparison.verdict)
