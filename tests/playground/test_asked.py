"""What the page's fields may hold."""

from typing import Any

import pytest

from daybreak.errors import UserError
from daybreak.playground.asked import Asked, Limits, read_asked
from daybreak.playground.settings import SETTINGS
from daybreak.sampling.settings import SamplingConfig

LIMITS = Limits(characters=20, tokens=50, waiting=1)
OFF = {setting.name: setting.off if setting.off is not None else 1.0 for setting in SETTINGS}
FIELDS: dict[str, Any] = {"prompt": "Once", "tokens": 7, "greedy": False, "seed": 3, "stop": "", **OFF}


def test_with_everything_off_the_model_itself_is_drawn_from() -> None:
    assert read_asked(FIELDS, LIMITS) == Asked("Once", 7, SamplingConfig(seed=3))


def test_every_setting_of_sampling_has_a_field_that_reaches_it() -> None:
    assert {setting.name for setting in SETTINGS} | {"greedy", "seed"} == set(SamplingConfig.model_fields)
    for setting in SETTINGS:
        middle = round((setting.low + setting.high) / 2 / setting.step) * setting.step
        assert middle not in (setting.off, SamplingConfig.model_fields[setting.name].default)
        sampling = read_asked(FIELDS | {setting.name: middle}, LIMITS).sampling
        assert sampling.model_dump(exclude_defaults=True) == {"seed": 3, setting.name: pytest.approx(middle)}


@pytest.mark.parametrize("end", ["low", "high", "start"])
def test_the_ends_of_every_slider_are_settings(end: str) -> None:
    for setting in SETTINGS:
        assert setting.low <= setting.start <= setting.high
        read_asked(FIELDS | {setting.name: getattr(setting, end)}, LIMITS)


def test_greedy_leaves_the_settings_of_drawing_out() -> None:
    given = {setting.name: setting.low if setting.low != setting.off else setting.high for setting in SETTINGS}
    asked = read_asked(FIELDS | given | {"greedy": True}, LIMITS)
    assert asked.sampling == SamplingConfig(greedy=True, seed=3, repetition_penalty=2.0)


def test_stop_strings_are_lines_with_escapes() -> None:
    assert read_asked(FIELDS | {"stop": "\\n\\n\n\nThe end\na\\tb\n"}, LIMITS).stop == ("\n\n", "The end", "a\tb")


def test_what_is_at_the_limit_is_given() -> None:
    asked = read_asked(FIELDS | {"prompt": "é" * 20, "tokens": 50}, LIMITS)
    assert (len(asked.prompt), asked.tokens) == (20, 50)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("prompt", "é" * 21, "the prompt has 21 characters, and this page takes 20"),
        ("tokens", 51, "51 tokens were asked for, and this page makes 1 to 50"),
        ("tokens", 0, "0 tokens"),
        ("tokens", 1.5, "tokens = 1.5"),
        ("tokens", None, "tokens is empty"),
        ("tokens", "many", "tokens = 'many'"),
        ("seed", -1, "seed = -1"),
        ("seed", None, "seed is empty"),
        ("temperature", None, "temperature is empty"),
        ("temperature", 0, "temperature = 0"),
        ("temperature", float("nan"), "temperature = nan"),
        ("top_k", 2.5, "top_k = 2.5"),
        ("top_p", 3, "top_p = 3"),
        ("top_p", [], "top_p = []"),
        ("prompt", {"text": "Once"}, "prompt = {"),
        ("stop", "\n".join("abcdefghi"), "9 stop strings are more than 8"),
        ("stop", "x" * 101, "a stop string of 101 characters"),
    ],
)
def test_what_is_not_given_is_said(name: str, value: Any, said: str) -> None:
    with pytest.raises(UserError) as refused:
        read_asked(FIELDS | {name: value}, LIMITS)
    assert said in str(refused.value)


def test_an_empty_field_that_can_be_off_is_off() -> None:
    assert read_asked(FIELDS | {"top_k": None, "prompt": None, "stop": None}, LIMITS) == Asked(
        "", 7, SamplingConfig(seed=3)
    )


def test_the_page_states_the_limits_that_it_keeps() -> None:
    assert "20 characters" in LIMITS.said
    assert "50 tokens" in LIMITS.said
    assert "up to 1 wait" in LIMITS.said
