"""What was scraped: the text of pages, and whole web archives as warcio writes them."""

import gzip
import io
from pathlib import Path

import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from daybreak.data import scrape
from daybreak.data.documents import PLAIN, Document, Tally
from daybreak.data.inputs import file_input
from daybreak.errors import UserError


def page(subject: str) -> bytes:
    """A page with a menu, an article and a foot."""
    sentences = [
        f"The {subject} of the north is known since the {number}th century, and it is täglich seen."
        for number in range(12)
    ]
    paragraphs = "".join(f"<p>{sentence}</p>" for sentence in sentences)
    return (
        f"<html><head><meta charset='utf-8'><title>{subject}</title><script>var menu = 1;</script></head><body>"
        f"<nav><ul><li><a href='/'>Home</a></li><li><a href='/login'>Log in</a></li></ul></nav>"
        f"<main><article><h1>On the {subject}</h1>{paragraphs}</article></main>"
        "<footer>Copyright and cookies</footer></body></html>"
    ).encode()


class Archive:
    """A web archive in memory."""

    def __init__(self, packed: bool) -> None:
        self.content = io.BytesIO()
        self.writer = WARCWriter(self.content, gzip=packed)

    def add(
        self, url: str, content: bytes, *, kind: str = "text/html; charset=utf-8", status: str = "200 OK",
        coding: str | None = None, record: str = "response",
    ) -> None:  # fmt: skip
        fields = [("Content-Type", kind)] + ([("Content-Encoding", coding)] if coding else [])
        headers = StatusAndHeaders(status, fields, protocol="HTTP/1.1") if record == "response" else None
        self.writer.write_record(
            self.writer.create_warc_record(
                url, record, payload=io.BytesIO(content), http_headers=headers,
                warc_content_type=None if headers else kind, warc_headers_dict={"WARC-Date": "2021-02-03T04:05:06Z"},
            )
        )  # fmt: skip


def documents_of(path: Path, tally: Tally) -> list[Document]:
    return list(file_input(path, PLAIN).read(tally))


@pytest.mark.parametrize("name", ["a.html", "a.HTM", "a.html.gz"])
def test_a_page_gives_its_article_without_menus(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(gzip.compress(page("walrus")) if name.endswith(".gz") else page("walrus"))
    (document,) = documents_of(tmp_path / name, Tally())
    text = "".join(document.pieces)
    assert text.count("The walrus of the north is known") == 12
    assert "täglich" in text
    assert not any(word in text for word in ("Log in", "cookies", "var menu", "<p>"))


@pytest.mark.parametrize(
    "content", [b"", b"   ", b"<html><body></body></html>", b"\0\1\2\3", b"<html>" + b"<div>" * 500]
)
def test_a_page_without_text_is_counted(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_bytes(content)
    tally = Tally()
    assert documents_of(tmp_path / "a.html", tally) == []
    assert tally.passed == {"records without text": 1}


def test_a_page_that_is_too_long_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "_LONGEST_PAGE", 1000)
    (tmp_path / "a.html").write_bytes(page("walrus"))
    tally = Tally()
    assert documents_of(tmp_path / "a.html", tally) == []
    assert tally.passed == {scrape.LONG_PAGES: 1}


@pytest.mark.parametrize("packed", [True, False])
def test_the_pages_of_a_web_archive_are_read_in_order(packed: bool, tmp_path: Path) -> None:
    plain = "Plain text, extracted by others: täglich"
    archive = Archive(packed)
    archive.writer.write_record(archive.writer.create_warcinfo_record("a.warc", {"software": "test"}))
    archive.add("http://a.org/walrus", page("walrus"))
    archive.add("http://a.org/request", b"GET / HTTP/1.1\r\n\r\n", record="request", kind="application/http")
    archive.add("http://a.org/picture.png", b"\x89PNG\0", kind="image/png")
    archive.add("http://a.org/gone", page("error"), status="404 Not Found")
    archive.add("http://a.org/narwhal", gzip.compress(page("narwhal")), coding="gzip")
    archive.add(
        "http://a.org/extracted",
        plain.encode(),
        record="conversion",
        kind="text/plain",
    )
    path = tmp_path / ("a.warc.gz" if packed else "a.warc")
    path.write_bytes(archive.content.getvalue())
    tally = Tally()
    found = [(each.origin, each.date, "".join(each.pieces)) for each in file_input(path, PLAIN).read(tally)]
    names = ["walrus", "narwhal", "extracted"]
    assert [origin for origin, _, _ in found] == [f"{path}:http://a.org/{name}" for name in names]
    assert {date for _, date, _ in found} == {"2021-02-03"}
    assert [text.count("of the north") for _, _, text in found] == [12, 12, 0]
    assert found[2][2] == plain
    assert tally.passed == {"records without text": 2}


def test_pages_of_an_archive_that_are_too_long_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(packed=True)
    archive.add("http://a.org/bomb", gzip.compress(bytes(30_000_000)), coding="gzip")
    archive.add("http://a.org/walrus", page("walrus"))
    (tmp_path / "a.warc.gz").write_bytes(archive.content.getvalue())
    tally = Tally()
    assert [document.origin[-6:] for document in documents_of(tmp_path / "a.warc.gz", tally)] == ["walrus"]
    assert tally.passed == {scrape.LONG_PAGES: 1}


@pytest.mark.parametrize("packed", [True, False])
def test_a_web_archive_that_breaks_off_is_named_wherever_it_does(packed: bool, tmp_path: Path) -> None:
    archive = Archive(packed)
    archive.add("http://a.org/walrus", page("walrus"), kind="image/png")
    whole = archive.content.tell()
    archive.add("http://a.org/narwhal", page("narwhal"), kind="image/png")
    content = archive.content.getvalue()
    path = tmp_path / ("a.warc.gz" if packed else "a.warc")
    ends = range(whole + 1, len(content) - (0 if packed else 4), 7 if packed else 13)
    for end in ends:
        path.write_bytes(content[:end])
        with pytest.raises(UserError, match=r"a\.warc"):
            documents_of(path, Tally())
    path.write_bytes(content)
    assert documents_of(path, Tally()) == []


def test_a_file_that_is_no_web_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.warc").write_bytes(b"this is some text\nand more\n")
    with pytest.raises(UserError, match=r"a\.warc is damaged"):
        documents_of(tmp_path / "a.warc", Tally())
