"""Colours can be told from what is behind them, by the formula of WCAG 2.1, in light and in dark."""

import re
from importlib.resources import files

import pytest

from daybreak.report.svg import DEPTHS, SERIES

STYLE = files("daybreak.report").joinpath("colours.css").read_text()
COLOURS = re.compile(r"--([\w-]+): #([0-9a-f]{6});")
LIGHT, DARK = (dict(COLOURS.findall(part)) for part in STYLE.split("@media (prefers-color-scheme: dark)"))


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2.1 defines it."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def test_the_formula_is_that_of_the_standard() -> None:
    assert contrast("ffffff", "000000") == pytest.approx(21.0)
    assert contrast("777777", "ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast(colours: dict[str, str]) -> None:
    assert LIGHT.keys() == DARK.keys()
    for text in ("ink", "muted", "link", "good", "bad"):
        for behind in ("surface", "raised"):
            assert contrast(colours[text], colours[behind]) >= 4.5, (text, behind)
    for line in (*SERIES, *DEPTHS):
        assert contrast(colours[line], colours["surface"]) >= 3.0, line
    assert contrast(colours["surface"], colours["ink"]) >= 7.0  # of a chosen switch
