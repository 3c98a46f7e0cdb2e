"""Text as HTML: read again by another parser, and seen by people of all kinds of sight."""

import math
import re
from importlib.resources import files
from itertools import pairwise

import pytest
from html_reader import read
from stand_ins import SAID

from daybreak.playground import markup
from daybreak.report.html import style
from daybreak.sampling.text import Piece

ROLE = re.compile(r"--([\w-]+): (#[0-9a-f]{6})")


def test_markup_of_a_prompt_or_a_model_stays_text() -> None:
    prompt = "</div><b>bold</b> & 'so' \"on\""
    found = read(markup.continuation(prompt, [Piece(text, 0, -1.0) for text in SAID]))
    assert set(found.tags) == {"div", "span", "ins"}
    assert [text for _, _, text in found.text] == [prompt, *SAID]


def test_prompt_and_continuation_are_told_apart() -> None:
    found = read(markup.continuation("The", [Piece(" end", 0, math.log(0.25))]))
    assert found.text == [("prompt", None, "The"), ("p1", "25 %", " end")]


@pytest.mark.parametrize(
    ("probability", "class_"),
    [(1.0, "p0"), (0.5, "p0"), (0.49, "p1"), (0.2, "p1"), (0.1, "p2"), (0.02, "p3"), (0.005, "p4"), (1e-5, "p5")],
)
def test_a_token_has_the_colour_of_its_probability(probability: float, class_: str) -> None:
    found = read(markup.continuation("", [Piece("x", 0, math.log(probability) + 1e-12)]))
    assert found.text[0][0] == class_


def test_a_character_of_several_tokens_has_their_probability_together() -> None:
    pieces = [Piece("", 1, math.log(0.5)), Piece("é", 2, math.log(0.5)), Piece("!", 3, math.log(0.9))]
    found = read(markup.continuation("", pieces))
    assert [(title, text) for _, title, text in found.text] == [("25 %", "é"), ("90 %", "!")]


def test_a_control_character_is_spelled_out() -> None:
    found = read(markup.continuation("", [Piece("a\x00\x1b[31mb\ud800\n", 0, 0.0)]))
    assert found.text[0][2] == "a\\x00\\x1b[31mb\\ud800\n"


def test_the_legend_names_every_class() -> None:
    named = [text for class_, _, text in read(markup.legend()).text if class_]
    assert named == ["50 % and more", "20 % to 50 %", "5 % to 20 %", "1 % to 5 %", "0.1 % to 1 %", "below 0.1 %"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_every_colour_and_colours_differ_without_hue(scheme: str) -> None:
    own = files("daybreak.playground").joinpath("colours.css").read_text(encoding="utf-8")
    roles: dict[str, str] = {}
    for sheet in (style("colours.css"), own):
        light, _, dark = sheet.partition("@media")
        roles |= dict(ROLE.findall(light)) | (dict(ROLE.findall(dark)) if scheme == "dark" else {})
    backgrounds = [roles["surface"], *(roles[f"p{at}"] for at in range(1, len(markup.BOUNDS) + 1))]
    assert all(contrast(roles["ink"], each) >= 4.5 for each in backgrounds)  # WCAG 2.1, AA
    lightness = [luminance(each) for each in backgrounds]
    assert lightness == sorted(lightness, reverse=scheme == "light")
    assert all(contrast(one, next_) >= 1.1 for one, next_ in pairwise(backgrounds))


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2.1 defines it."""
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
