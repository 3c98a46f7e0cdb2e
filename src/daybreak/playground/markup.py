"""Prompt and continuation as HTML: marked off from one another, each token with its probability."""

import math
from collections.abc import Sequence
from itertools import pairwise
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from daybreak.report.html import element
from daybreak.sampling.text import Piece

BOUNDS = (0.5, 0.2, 0.05, 0.01, 0.001)  # of probability; a class of colour lies between two


def html(made: Element) -> str:
    """As text, escaped by the tree itself."""
    return ElementTree.tostring(made, encoding="unicode", method="html")


def continuation(prompt: str, pieces: Sequence[Piece]) -> str:
    """A prompt and what followed; a character that took several tokens has the probability of them together."""
    tokens, log_probability = [], 0.0
    for piece in pieces:
        log_probability += piece.log_probability
        if piece.text:
            tokens.append(_token(piece.text, math.exp(log_probability)))
            log_probability = 0.0
    made = element("ins", *tokens)
    return html(element("div", element("span", prompt, class_="prompt") if prompt else None, made, class_="text"))


def legend() -> str:
    """What the colours stand for."""
    names = [f"{_percent(BOUNDS[0])} and more"]
    names += [f"{_percent(low)} to {_percent(high)}" for high, low in pairwise(BOUNDS)]
    names += [f"below {_percent(BOUNDS[-1])}"]
    items = [element("li", element("span", name, class_=f"p{at}")) for at, name in enumerate(names)]
    title = element("span", "Probability of each token in the model itself, whatever the settings:")
    return html(element("div", title, element("ul", *items), class_="legend-of-colours"))


def status(text: str, *, busy: bool = False) -> str:
    """A line on what is going on."""
    return html(element("p", text, class_="status busy" if busy else "status", role="status"))


def problem(text: str) -> str:
    """What is wrong and can be mended."""
    return html(element("p", f"{text[:1].upper()}{text[1:]}.", class_="problem", role="alert"))


def note(text: str) -> str:
    """Small print."""
    return html(element("p", text, class_="note"))


def heading(names: Sequence[str]) -> str:
    """The top of the page."""
    return html(element("header", element("h1", "Daybreak"), element("p", ", ".join(names), class_="subtitle")))


def _token(text: str, probability: float) -> Element:
    at = sum(probability < bound for bound in BOUNDS)
    return element("span", text, class_=f"p{at}", title=_percent(probability))


def _percent(probability: float) -> str:
    return f"{float(f'{100 * probability:.2g}'):g} %"
