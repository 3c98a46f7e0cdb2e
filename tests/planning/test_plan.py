"""Plans: what they say against sums by hand, what they warn of, and the runs of others that they reproduce."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from daybreak.cli.plan import plan as print_plan
from daybreak.data.shards import Corpus
from daybreak.errors import UserError
from daybreak.model.gpt import count_parameters
from daybreak.planning import here as here_module
from daybreak.planning.course import Pace
from daybreak.planning.elsewhere import USUAL_MFU
from daybreak.planning.expectation import by_law
from daybreak.planning.plan import Plan, plan
from daybreak.planning.rehearsal import Rehearsal
from daybreak.recipe import Recipe

TINY = (
    "model.layers=1", "model.heads=2", "model.dim=16", "model.context=16", "model.vocab_size=320", "data.window=16",
    "data.tokenizer=bytes", "batch.tokens=128", "evaluation.tokens=256", "execution.threads=1",
)  # fmt: skip
PACE = Pace(start=5.0, step=0.5, evaluation=3.0, sample=1.0, save=2.0)


def elsewhere(recipe: str, *overrides: str, device: str, count: int = 1, mfu: float = USUAL_MFU) -> Plan:
    return plan(Recipe.load(recipe, *overrides), device=device, count=count, mfu=mfu)


def value(found: Plan, name: str) -> float:
    figure = found.value(name)
    assert figure is not None
    return figure


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of known pace."""
    found = Rehearsal("cpu", "fp32", 4, PACE, peak_bytes=10**9, windows=0, checkpoint_bytes=10**7)
    monkeypatch.setattr(here_module, "rehearse", lambda recipe: found)


@pytest.mark.parametrize(
    ("recipe", "device", "count", "mfu", "gpu_hours"),
    [
        ("gpt-star-127m", "A5000", 4, 0.216, 248),
        ("gpt-star-303m", "RTX 3090", 4, 0.482, 412),
        ("gpt-star-1b", "A100", 8, 0.148, 1008),
    ],
)
def test_the_gpt_star_runs_take_the_hours_that_they_state(
    recipe: str, device: str, count: int, mfu: float, gpu_hours: float
) -> None:
    """At the MFU that their 51,000 steps of 524,288 tokens, their hours and the data sheet imply."""
    found = elsewhere(recipe, device=device, count=count, mfu=mfu)
    assert value(found, "steps") == 51_000
    assert count * value(found, "time") / 3600 == pytest.approx(gpu_hours, rel=0.01)
    assert value(found, "device-hours") == pytest.approx(gpu_hours, rel=0.01)


def test_what_25_percent_was() -> None:
    """240 hours for 21 B tokens of GPT-2 small against 248 for 26 B: a quarter more tokens, a fifth more an hour."""
    gpt2 = elsewhere("gpt2", "budget=21B tokens", device="A5000", mfu=0.187)
    star = elsewhere("gpt-star-127m", "budget=26B tokens", device="A5000", mfu=0.210)
    assert value(gpt2, "time") / 3600 == pytest.approx(240, rel=0.01)
    assert value(star, "time") / 3600 == pytest.approx(248, rel=0.01)
    tokens_an_hour = [value(found, "tokens") / value(found, "time") for found in (gpt2, star)]
    assert pytest.approx(1.24, abs=0.005) == 26 / 21
    assert tokens_an_hour[1] / tokens_an_hour[0] == pytest.approx(1.20, abs=0.02)
    flops_an_hour = [value(found, "FLOPs") / value(found, "time") for found in (gpt2, star)]
    assert flops_an_hour[1] / flops_an_hour[0] == pytest.approx(1.12, abs=0.02)


@pytest.mark.parametrize(("device", "mfu"), [("RTX 3060", 0.33), ("RTX 3090", 0.32)])
def test_a_day_of_cramming(device: str, mfu: float) -> None:
    """66 % and 64 % of the shader peak are 33 % and 32 % of the tensor cores'; the day is the budget."""
    found = elsewhere("crammed-gpt2", "budget=24h", device=device, mfu=mfu)
    assert value(found, "time") == pytest.approx(86_400, rel=0.001)
    peak = {"RTX 3060": 25.5e12, "RTX 3090": 71e12}[device]
    assert value(found, "tokens") == pytest.approx(86_400 * mfu * peak / 770.1e6, rel=0.01)


def test_zero_one_took_521_seconds_to_step_150() -> None:
    found = elsewhere("zero-one", "budget=150 steps", "evaluation.every=never", device="A100", mfu=0.338)
    training = value(found, "steps") * value(found, "seconds a step")
    assert training == pytest.approx(521, rel=0.01)


def test_let_us_reproduce_takes_the_hours_of_its_flops() -> None:
    """19,073 steps on 8 x A100 at 40 %: 855.2 MFLOP a token."""
    alone = ("evaluation.every=never", "samples.every=never", "checkpoint.every=never")
    found = elsewhere("fineweb-edu-gpt2", *alone, device="A100", count=8, mfu=0.4)
    hours = 19_073 * 524_288 * 855.2e6 / (0.4 * 8 * 312e12) / 3600
    assert value(found, "time") / 3600 == pytest.approx(hours, rel=0.03)


def test_money_and_device_hours() -> None:
    found = elsewhere("gpt2", "budget=10h", "price=2.0", device="RTX 3090", count=4)
    assert value(found, "dollars") == pytest.approx(20, rel=1e-3)
    assert value(found, "device-hours") == pytest.approx(40, rel=1e-3)
    assert elsewhere("gpt2", "budget=10h", device="RTX 3090").value("dollars") is None


def test_memory_that_does_not_suffice_is_said_with_what_would() -> None:
    (warning,) = [each for each in elsewhere("gpt-star-1b", device="RTX 3060").warnings if each.startswith("memory")]
    assert "12.00 GB" in warning
    assert "fsdp on 2 devices" in warning
    (warning,) = [
        each
        for each in elsewhere("gpt2", "model.context=16384", "data.window=16384", device="RTX 3060").warnings
        if each.startswith("memory")
    ]
    assert "execution.recompute=true" in warning
    assert not [each for each in elsewhere("gpt2", device="A100").warnings if each.startswith("memory")]


def test_a_micro_batch_that_does_not_fit_is_said_with_one_that_does() -> None:
    (warning,) = elsewhere("gpt2", "execution.micro_batch=480", device="RTX 3060").warnings
    assert "execution.micro_batch = 480 takes" in warning
    fitting = int(warning.rpartition("execution.micro_batch=")[2].split()[0])
    assert elsewhere("gpt2", f"execution.micro_batch={fitting}", device="RTX 3060").warnings == ()


def test_a_model_that_does_not_fit_here_is_said_with_what_would(
    monkeypatch: pytest.MonkeyPatch, corpus: Corpus
) -> None:
    monkeypatch.setattr(here_module, "free_memory", lambda device: 10**8)
    monkeypatch.setattr(here_module, "rehearse", lambda recipe, corpus: pytest.fail("it was begun"))
    with pytest.raises(UserError, match=r"even one row takes .* of 100.0 MB"):
        plan(Recipe.load("gpt2", "data.tokenizer=bytes"), data=corpus.path, mfu=USUAL_MFU)


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("zero-one", ("schedule.warmup=2000 steps",), "schedule.*2,?000 steps.* do not fit"),
        ("gpt2", ("budget=100 steps", "schedule.warmup=150 steps"), "schedule"),
        ("gpt2", ("budget=10 steps", "schedule.warmup=2%"), "too few to learn from"),
        ("gpt-star-1b", ("budget=6000 steps",), "curriculum: it ends in rows of 192 tokens"),
        ("gpt3-small", ("budget=1000 steps", "batch.ramp={start=32768, over='4B tokens'}"), "batch.ramp: it ends at"),
    ],
)
def test_what_makes_no_sense_is_said(recipe: str, overrides: tuple[str, ...], message: str) -> None:
    import re

    found = elsewhere(recipe, *overrides, device="A100")
    assert any(re.search(message, warning) for warning in found.warnings), found.warnings


def test_a_sound_plan_warns_of_nothing() -> None:
    assert elsewhere("gpt2", device="A100", count=8).warnings == ()


def test_data_that_run_out_are_said(corpus: Corpus, here: None) -> None:
    found = plan(Recipe.load("gpt2-tiny", *TINY, "budget=3 epochs"), data=corpus.path, mfu=USUAL_MFU)
    assert value(found, "epochs") == pytest.approx(3, rel=0.01)
    assert any("read 3.0 times" in warning for warning in found.warnings)
    once = plan(Recipe.load("gpt2-tiny", *TINY, "budget=1 epochs"), data=corpus.path, mfu=USUAL_MFU)
    assert not any(warning.startswith("data") for warning in once.warnings)


def test_the_loss_of_a_member_is_expected(corpus: Corpus, here: None) -> None:
    member = ("model.vocab_size=320", "data.tokenizer=bytes", "budget=1000 steps")
    found = plan(Recipe.load("daybreak-d2", *member), data=corpus.path, mfu=USUAL_MFU)
    recipe = Recipe.load("daybreak-d2", *member)
    assert value(found, "validation loss") == by_law(recipe, value(found, "tokens"), corpus).loss
    other = plan(Recipe.load("daybreak-d2", *member, "model.mlp.activation=gelu"), data=corpus.path, mfu=USUAL_MFU)
    assert other.value("validation loss") is None


@pytest.mark.parametrize(
    ("settings", "checkpoints"),
    [
        (("checkpoint.keep=3", "checkpoint.keep_best=false"), 3 + 1),
        (("checkpoint.keep=3", "checkpoint.keep_best=true"), 3 + 1 + 1),
        (("checkpoint.keep=3", "checkpoint.keep_best=false", "schedule={kind='wsd'}"), 3 + 1 + 1),
        (("checkpoint.keep=2", "checkpoint.keep_best=false", "checkpoint.keep_every=5%"), 2 + 20 + 1),
    ],
)
def test_disk_holds_what_the_recipe_keeps(
    settings: tuple[str, ...], checkpoints: int, here: None, corpus: Corpus
) -> None:
    found = plan(Recipe.load("gpt2-tiny", *TINY, *settings, "budget=100 steps"), data=corpus.path)
    assert value(found, "disk") == pytest.approx(checkpoints * 10**7 + 100 * 400)


def test_a_time_makes_sense_of_a_warm_up_in_steps(here: None, corpus: Corpus) -> None:
    """A hundred seconds hold some 180 steps of half a second."""

    def warnings(warmup: str) -> list[str]:
        recipe = Recipe.load("gpt2-tiny", *TINY, "budget=100s", f"schedule.warmup={warmup}")
        return [each for each in plan(recipe, data=corpus.path).warnings if each.startswith("schedule")]

    assert warnings("100 steps") == []
    assert warnings("300 steps") != []


def test_epochs_need_a_text() -> None:
    with pytest.raises(UserError, match="budget = 2 epochs depends on the text"):
        elsewhere("gpt2", "budget=2 epochs", device="A100")


def test_an_unknown_device_names_those_that_are_known() -> None:
    with pytest.raises(UserError, match=r"'Voodoo 2' is not in the table; it knows .*RTX 3090"):
        elsewhere("gpt2", device="Voodoo 2")
    with pytest.raises(UserError, match="do not divide among 7 devices; among 6 they do"):
        elsewhere("gpt2", device="A100", count=7)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("8xA100", "--device 'A100' --gpus 8"), ("RTX 309", "did you mean 'RTX 3090'"), ("H20", "did you mean 'H200'")],
)
def test_a_device_that_was_meant_is_named(name: str, meant: str) -> None:
    with pytest.raises(UserError, match=meant):
        elsewhere("gpt2", device=name)


@pytest.mark.parametrize(
    ("name", "known"),
    [("rtx3090", "RTX 3090"), ("RTX3060ti", "RTX 3060 Ti"), ("3090", "RTX 3090"), ("RTX 3080 Ti", "RTX 3080 Ti")],
)
def test_devices_are_known_as_people_write_them(name: str, known: str) -> None:
    assert elsewhere("gpt2", device=name).device == known


def test_a_micro_batch_above_the_rows_of_a_step_fits_where_there_is_room() -> None:
    found = elsewhere("gpt2", "batch.tokens=8192", "execution.micro_batch=16", device="A100")
    assert not [each for each in found.warnings if each.startswith("memory")]


def test_what_is_no_plan_of_one_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="without torchrun"):
        print_plan("gpt2")
    with pytest.raises(UserError, match="daybreak train auto"):
        print_plan("auto")


@pytest.mark.parametrize("setting", ["price=1e-310", "price=1e300", "evaluation.every=1e-310%", "budget=1e300 tokens"])
def test_absurd_figures_are_refused(setting: str) -> None:
    with pytest.raises(UserError, match=r"is not valid|beyond all"):
        elsewhere("gpt2", setting, device="A100")


@pytest.mark.slow
def test_this_machine_is_measured(corpus: Corpus) -> None:
    found = plan(Recipe.load("gpt2-tiny", *TINY, "budget=2000 steps"), data=corpus.path, mfu=USUAL_MFU)
    assert value(found, "parameters") == count_parameters(Recipe.load("gpt2-tiny", *TINY).model)
    assert 1 < value(found, "time") < 600
    assert 1e8 < value(found, "memory in all") < 3e9


def test_the_command_prints_a_table_and_json(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "daybreak", "plan", "gpt2", "--device", "RTX 3090", "--gpus", "4", "--price", "1.6"]
    table = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert "4 x RTX 3090" in table
    assert "estimated: 35.0% of the data sheet's dense peak" in table
    document = json.loads(subprocess.run([*words, "--json"], capture_output=True, check=True, cwd=tmp_path).stdout)
    figures = {each["name"]: each for each in document["figures"]}
    assert figures["parameters"]["value"] == 124_439_808
    assert figures["dollars"]["value"] == pytest.approx(1.6 * figures["time"]["value"] / 3600)
    assert all(each["how"] for each in figures.values())


def test_figures_are_of_the_machine_asked_for(here: None, corpus: Corpus) -> None:
    recipe = Recipe.load("gpt2-tiny", *TINY, "budget=100 steps")
    found = plan(recipe, data=corpus.path, mfu=USUAL_MFU)
    assert value(found, "tokens a second") == 256
    # The pages of the corpus, which all are mapped sooner or later, come on top.
    assert value(found, "memory in all") == 10**9 + 2 * corpus.train.tokens
    assert value(found, "checkpoint") == 10**7


def test_a_recipe_whose_model_is_still_to_be_given_is_not_begun_here() -> None:
    with pytest.raises(UserError, match=r"shakespeare-finetune begins from a trained model.* give init=RUN"):
        plan(Recipe.load("shakespeare-finetune"))
