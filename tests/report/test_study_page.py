"""The page of a study: verdicts first, true to the trials, also before all are done."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from page_reader import Page, read

from daybreak import Run, write_report
from daybreak.data.shards import Corpus
from daybreak.errors import UserError
from daybreak.files import write_sealed
from daybreak.report.study_page import ordered
from daybreak.study.design import Design, variants
from daybreak.study.pace import Pace
from daybreak.study.results import FORMAT, PACES, STUDY, read_study, trial_folder
from daybreak.study.table import shown

LOSSES = {
    "base": (2.70, 2.75, 2.72),
    "better": (2.601, 2.649, 2.622),
    "worse": (2.801, 2.852, 2.819),
    "unclear": (2.9, 2.5, 2.8),
}


@pytest.fixture(scope="module")
def study(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four variants at three seeds, all with the metrics of one run."""
    path = tmp_path_factory.mktemp("studies") / "made"
    path.mkdir()
    changes = {"better": ["optimizer.lr=2e-2"], "worse": ["model.dropout=0.3"], "unclear": ["model.dropout=0.1"]}
    design = Design.of({"base": "gpt2-tiny", "budget": "15s", "seeds": 3, "changes": changes}, "made")
    made = variants(design)
    content = {
        "format": FORMAT,
        "design": design.model_dump(mode="json", by_alias=True),
        "variants": [variant.model_dump(mode="json") for variant in made],
        "recipes": {variant.name: trained.recipe.model_dump(mode="json") for variant in made},
        "torch": "2",
        "machine": "<i>here</i>",
    }
    write_sealed(path / STUDY, content)
    pace = Pace(step_seconds=0.25, tokens_per_second=1000.0, error=0.01, peak_bytes=12_000_000, micro_batch=4)
    write_sealed(path / PACES, {variant.name: asdict(pace) for variant in made})
    for name, losses in LOSSES.items():
        for seed, loss in enumerate(losses, start=1):
            make_trial(trained, path, name, seed, loss)
    return path


def make_trial(trained: Run, path: Path, variant: str, seed: int, loss: float | None) -> None:
    folder = trial_folder(path, variant, seed)
    shutil.copytree(trained.path, folder, ignore=shutil.ignore_patterns("checkpoints"))
    trial: dict[str, Any] = {"variant": variant, "seed": seed, "loss": loss, "bits_per_byte": loss}
    spent = {"steps": 40, "tokens": 2560, "flops": 1e9, "train_seconds": 2.0}
    write_sealed(folder / "trial.json", {**trial, **spent})


@pytest.fixture(scope="module")
def page(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return read(write_report(study, tmp_path_factory.mktemp("pages") / "study.html").read_bytes())


def test_verdicts_come_first_and_are_those_of_the_study(study: Path, page: Page) -> None:
    found = read_study(study)
    assert page.text.index("Verdicts") < page.text.index("Differences") < page.text.index("Every trial")
    assert {each.variant: each.verdict for each in found.comparisons}["better"] == "helps"
    for each in found.comparisons:
        verdict, to, difference, interval, p, could_show, loss, rate, memory = page.row(each.variant)
        assert (verdict, to) == (each.verdict, each.reference)
        assert float(difference.replace("−", "-")) == pytest.approx(each.difference.mean, abs=5e-5)
        low, high = (float(end.replace("−", "-")) for end in interval.split(" to "))
        assert (low, high) == pytest.approx((each.difference.low, each.difference.high), abs=5e-5)
        assert each.p_adjusted is not None
        assert p == ("< 0.0001" if each.p_adjusted < 1e-4 else f"{each.p_adjusted:.4f}")
        assert float(could_show) == pytest.approx(each.difference.detectable or 0, abs=5e-5)
        assert float(loss) == pytest.approx(sum(LOSSES[each.variant]) / 3, abs=5e-5)
        assert (rate, memory) == ("1,000", "12 MB")


def test_words_are_those_of_the_command_line(study: Path, page: Page) -> None:
    heads = next(row for row in page.rows if row[:2] == ["variant", "verdict"])
    printed = next(line for line in shown(read_study(study)).splitlines() if line.startswith("| variant"))
    assert set(heads) == {head.strip() for head in printed.strip("|").split("|")}
    assert "detectable" not in page.text.lower()
    assert "3 changes over 3 seeds" in page.text
    assert "may still be “not shown”: p is adjusted" in page.text


def test_what_was_measured_on_is_named(page: Page, corpus: Corpus) -> None:
    measured_on = f"the held-out text of {corpus.path.name} ({corpus.identity[:12]})"
    assert page.row("measured on") == [measured_on]
    assert f"measured on {measured_on}" in page.text
    assert str(corpus.path.parent) not in page.content


def test_variants_stand_from_the_best_to_the_worst(study: Path, page: Page) -> None:
    found = ordered(read_study(study))
    assert found[0].variant == "better"
    assert [each.difference.mean for each in found] == sorted(each.difference.mean for each in found)
    label = next(each for each in page.pictures if each is not None and "95 % interval" in each)
    assert label.startswith("better: −0.0993, 95 % interval")


def test_time_is_that_of_the_pace(page: Page) -> None:
    """40 steps of 0.25 s are ten seconds, whatever the clock said."""
    assert any(label == "training loss against time (seconds)" for label in page.pictures)
    assert "at the measured pace" in page.text
    assert 'id="loss-against-0" checked' in page.content.replace('=""', "")


def test_every_trial_and_the_design_are_there(page: Page) -> None:
    assert ["base", "2.7000", "2.7500", "2.7200", "40"] in page.rows
    assert ["better", "base", "optimizer.lr=2e-2"] in page.rows
    assert ["machine", "<i>here</i>"] in page.rows
    assert "i" not in page.tags


def test_a_study_that_is_not_done_has_a_page(trained: Run, study: Path, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(study / STUDY, begun / STUDY)
    page = read(write_report(begun).read_bytes())
    assert "No variant can be compared yet." in page.text
    assert "12 of 12 trials are missing" in page.text
    make_trial(trained, begun, "base", 1, 2.7)
    make_trial(trained, begun, "better", 1, None)
    page = read(write_report(begun).read_bytes())
    assert page.row("better")[0] == "diverged"
    assert ["better", "diverged", "–", "–", "40"] in page.rows


def test_a_study_is_not_laid_over_runs(trained: Run, study: Path) -> None:
    with pytest.raises(UserError, match="has a page of its own"):
        write_report([study, trained.path])
