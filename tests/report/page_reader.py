"""A page as a reader of HTML finds it: tags that fit, text, tables."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import final

_VOID = {"meta", "input", "br", "hr", "img", "link"}


@final
@dataclass
class Page(HTMLParser):
    """Reads a page and keeps what tests ask for."""

    content: str
    opened: list[str] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    ids: list[str] = field(default_factory=list)
    references: list[tuple[str, str]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    pictures: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.feed(self.content)
        self.close()
        assert self.opened == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "srcset", "action", "data", "poster", "background", "xlink:href"):
                self.references.append((tag, value or ""))
            assert not name.startswith("on")
        if tag == "svg":
            self.pictures.append(dict(attrs).get("aria-label") or dict(attrs).get("aria-hidden"))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in _VOID:
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.opened:
            return
        self.words.append(data)
        if "td" in self.opened or "th" in self.opened:
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return "".join(self.words)

    def row(self, name: str) -> list[str]:
        """What stands behind a row's name, in the first table that has it."""
        return next(cells[1:] for cells in self.rows if cells and cells[0] == name)


def read(content: bytes) -> Page:
    text = content.decode()
    assert text.startswith("<!doctype html>\n<html")
    return Page(text)
