"""A figure of matplotlib as an element of a page: without names, sizes and colours of its own."""

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours that the page's style gives a value in light and in dark, as custom properties.
SERIES = tuple(f"series-{number}" for number in range(1, 9))
DEPTHS = tuple(f"depth-{number}" for number in range(1, 7))
_ROLES = ("ink", "muted", "grid", "surface", "bad", "good", *SERIES, *DEPTHS)

_PLACEHOLDER = re.compile(r"#f0([0-9a-f]{2})0d")
_NUMBER = re.compile(r"-?\d+\.\d+")
_REFERENCE = re.compile(r"#([\w-]+)")
_FONT_FAMILY = re.compile(r"font-family: [^;]*; ?")
_NOT_TURNED = re.compile(r"^rotate\(-?0 ")
_ROUNDED = ("d", "x", "y", "cx", "cy", "width", "height", "transform", "points")


def placeholder(role: str) -> str:
    """The colour to draw in for what the page calls `role`."""
    return f"#f0{_ROLES.index(role):02x}0d"


def inline_svg(figure: "Figure", name: str, description: str) -> Element:
    """The figure as an <svg> element; the same figure gives the same element.

    Args:
        name: unlike that of every other figure on the page; ids begin with it.
        description: what somebody hears who does not see it.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = ElementTree.fromstring(buffer.getvalue())
    for element in svg.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key in [key for key in element.attrib if "}" in key]:
            element.set(key.rpartition("}")[2], element.attrib.pop(key))
        if element.tag != "text":
            element.text = None
        element.tail = None
    _remove(svg, lambda element: element.tag in ("metadata", "style"))
    _prefix_ids(svg, name)
    for element in svg.iter():
        if "style" in element.attrib:
            style = _PLACEHOLDER.sub(lambda found: f"var(--{_ROLES[int(found[1], 16)]})", element.attrib["style"])
            element.set("style", _FONT_FAMILY.sub("", style))
        for key in _ROUNDED:
            if key in element.attrib:
                short = _NUMBER.sub(_rounded, " ".join(element.attrib[key].split()))
                element.set(key, short.replace(" L ", "L").replace("M ", "M"))
        if _NOT_TURNED.match(element.get("transform", "")):
            del element.attrib["transform"]
    _remove(svg, lambda element: element.tag in ("g", "defs") and len(element) == 0)
    svg.attrib = {"viewBox": svg.attrib["viewBox"], "role": "img", "aria-label": description}
    return svg


def _remove(root: Element, unwanted: Callable[[Element], bool]) -> None:
    for parent in list(root.iter()):
        for child in [child for child in parent if unwanted(child)]:
            parent.remove(child)


def _prefix_ids(svg: Element, name: str) -> None:
    """Ids that something refers to, unlike those of other figures; the others go."""
    referring = [(element, key) for element in svg.iter() for key in ("href", "clip-path") if key in element.attrib]
    wanted = {found[1] for element, key in referring if (found := _REFERENCE.search(element.attrib[key]))}
    new = {old: f"{name}-{number}" for number, old in enumerate(sorted(wanted), start=1)}
    for element, key in referring:
        element.set(key, _REFERENCE.sub(lambda found: f"#{new[found[1]]}", element.attrib[key]))
    for element in svg.iter():
        old = element.attrib.pop("id", None)
        if old in new:
            element.set("id", new[old])


def _rounded(found: re.Match[str]) -> str:
    """A tenth of a pixel is finer than anyone sees."""
    return f"{round(float(found[0]), 1) + 0.0:g}"
