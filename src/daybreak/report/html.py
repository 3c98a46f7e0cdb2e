"""Elements of a page. Text is escaped and tags are closed by the tree itself, wherever they come from."""

from collections.abc import Iterable, Sequence
from importlib.resources import files
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from daybreak.data.inspection_page import printable

# Nothing is fetched and nothing runs, whatever a sample may hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_LONGEST_NAME = 24  # characters that stay on one line
Content = str | Element


def element(tag: str, *content: Content | None, **attributes: str) -> Element:
    """An element with text and elements in it; `class_` and `for_` are Python's way to write those attributes."""
    made = Element(tag, {name.rstrip("_").replace("_", "-"): printable(value) for name, value in attributes.items()})
    for each in content:
        if isinstance(each, Element):
            made.append(each)
        elif each:
            last = made[-1] if len(made) else None
            if last is None:
                made.text = (made.text or "") + printable(each)
            else:
                last.tail = (last.tail or "") + printable(each)
    return made


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[Content | None]],
    *,
    caption: str,
    texts: Sequence[int] = (),
) -> Element:
    """A table whose first column names its rows. It scrolls by itself where it is wider than the page.

    Args:
        caption: what the table says.
        texts: columns that hold words, not numbers.
    """

    def cell(tag: str, content: Content | None, column: int, **attributes: str) -> Element:
        is_name = isinstance(content, str) and " " not in content and len(content) <= _LONGEST_NAME
        class_ = "number" if column and column not in texts else "name" if is_name else ""
        return element(tag, content, **attributes, **({"class": class_} if class_ else {}))

    head = element("tr", *(cell("th", each, column, scope="col") for column, each in enumerate(heads)))
    body = [
        element(
            "tr", cell("th", first, 0, scope="row"), *(cell("td", each, at) for at, each in enumerate(rest, start=1))
        )
        for first, *rest in rows
    ]
    made = element(
        "table", element("caption", element("span", caption)), element("thead", head), element("tbody", *body)
    )
    return element("div", made, class_="scrolls", tabindex="0", role="region", aria_label=caption)


def figure(caption: Content, *content: Element, class_: str = "") -> Element:
    attributes = {"class_": class_} if class_ else {}
    return element("figure", *content, element("figcaption", caption), **attributes)


def details(summary: str, *content: Content | None, opened: bool = False) -> Element:
    made = element("details", element("summary", summary), *content)
    if opened:
        made.set("open", "")
    return made


def section(name: str, heading: str, *content: Content | None) -> Element:
    """A part of the page that links lead to by its name."""
    return element("section", element("h2", heading), *content, id=name)


def style(name: str) -> str:
    """One of the package's style sheets: `colours.css` alone serves a picture, with `style.css` a page."""
    return files("daybreak.report").joinpath(name).read_text(encoding="utf-8")


def page(title: str, header: Element, sections: Sequence[Element]) -> bytes:
    """The whole file, in UTF-8, with its style in it."""
    links = [element("li", element("a", each.findtext("h2") or "", href=f"#{each.get('id')}")) for each in sections]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", style("colours.css") + "\n" + style("style.css")),
    )
    navigation = element("nav", element("ul", *links), aria_label="Parts of this page")
    body = element("body", header, navigation, element("main", *sections))
    document = element("html", head, body, lang="en")
    text = ElementTree.tostring(document, encoding="unicode", method="html")
    return f"<!doctype html>\n{text}\n".encode()
