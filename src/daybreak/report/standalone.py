"""The differences of a study as pictures of their own, which carry their colours for light and dark."""

from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from daybreak.report.forest import draw_forest
from daybreak.report.html import style
from daybreak.report.study_page import forest_label, forest_rows, ordered
from daybreak.study.results import Study

_WIDTH = 860
_TEXT = "svg { background: var(--surface); font-family: system-ui, sans-serif }"


def differences_svg(study: Study) -> dict[str, bytes]:
    """An SVG file for each reference, by its name: the differences to it, with intervals and every seed.

    Raises:
        UserError: matplotlib is missing.
    """
    pictures = {}
    for reference, rows in forest_rows(ordered(study)).items():
        drawn = draw_forest(rows, "forest", forest_label(reference), _WIDTH)
        looks = Element("style")
        looks.text = f"{style('colours.css')}{_TEXT}"
        drawn.insert(0, looks)
        drawn.set("xmlns", "http://www.w3.org/2000/svg")
        pictures[reference] = ElementTree.tostring(drawn) + b"\n"
    return pictures
