"""Readers of what was scraped: HTML, and WARC (ISO 28500); the text of a page is found by trafilatura.

Pages without text, as menus and pictures, are passed over and counted.
"""

from collections.abc import Iterator
from io import BufferedReader
from typing import Any

from daybreak.data.documents import PLAIN, WITHOUT_TEXT, Document, Tally, document_of
from daybreak.errors import UserError

LONG_PAGES = "pages of more than 16 MB"
_LONGEST_PAGE = 16 << 20
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_TYPES_WITH_CONTENT = ("response", "resource", "conversion")


def read_html(file: BufferedReader, origin: str, tally: Tally) -> Iterator[Document]:
    """The text of a page.

    Raises:
        UserError: it cannot be read.
    """
    page = file.read(_LONGEST_PAGE + 1)
    if document := _document(page, "text/html", origin, None, tally):
        yield document


def read_warc(file: BufferedReader, origin: str, tally: Tally) -> Iterator[Document]:
    """The text of each page in a web archive, dated by its record: of HTML, and of plain text as in WET files.

    Raises:
        UserError: the archive is damaged or breaks off.
    """
    warcio = _warcio()
    records = warcio.archiveiterator.WARCIterator(file, no_record_parse=True)
    try:
        for record in records:
            stated = record.rec_headers.get_header("Content-Length") or ""
            if record.rec_type in _TYPES_WITH_CONTENT and (document := _page(record, origin, tally)):
                yield document
            while record.raw_stream.read(_LONGEST_PAGE):
                pass
            if not stated.isdigit() or record.raw_stream.limit > 0 or records.err_count:
                raise UserError(f"{origin} is damaged or breaks off in the record of {_address(record)}")
    except (warcio.exceptions.ArchiveLoadFailed, warcio.statusandheaders.StatusAndHeadersParserException) as error:
        raise UserError(f"{origin} is damaged: {error}") from error
    if records.offset != records.fh.tell():  # a last record whose header breaks off is taken for the end
        raise UserError(f"{origin} breaks off at byte {records.offset:,}")


def _page(record: Any, origin: str, tally: Tally) -> Document | None:
    """The document of a record, if its content is text."""
    fields = record.rec_headers
    if _type(fields) == "application/http":
        fields = record.http_headers = _http_headers(record)
    kind = "" if fields is None else _type(fields)
    if kind not in (*_HTML_TYPES, "text/plain"):
        tally.passed[WITHOUT_TEXT] += 1
        return None
    content = record.content_stream().read(_LONGEST_PAGE + 1)
    return _document(content, kind, f"{origin}:{_address(record)}", record.rec_headers.get_header("WARC-Date"), tally)


def _http_headers(record: Any) -> Any:
    """None if the answer was no page."""
    try:
        headers = _warcio().statusandheaders.StatusAndHeadersParser([], verify=False).parse(record.raw_stream)
    except EOFError:
        return None
    return headers if headers.get_statuscode() == "200" else None


def _type(headers: Any) -> str:
    return str(headers.get_header("Content-Type") or "").split(";")[0].strip().lower()


def _document(page: bytes, kind: str, origin: str, date: str | None, tally: Tally) -> Document | None:
    if len(page) > _LONGEST_PAGE:
        tally.passed[LONG_PAGES] += 1
        return None
    if kind in _HTML_TYPES:
        text = _trafilatura().extract(page, include_comments=False) if page.strip() else None
    else:
        text = page.decode("utf-8", errors="replace")
    return document_of({"text": text or "", "date": date}, origin, PLAIN, tally)


def _address(record: Any) -> str:
    return record.rec_headers.get_header("WARC-Target-URI") or "an unnamed page"


def _trafilatura() -> Any:
    try:
        import trafilatura
    except ImportError:
        raise UserError("HTML needs the package trafilatura: pip install 'daybreak[scrape]'") from None
    return trafilatura


def _warcio() -> Any:
    try:
        import warcio.archiveiterator
        import warcio.exceptions
        import warcio.statusandheaders
    except ImportError:
        raise UserError("WARC needs the package warcio: pip install 'daybreak[scrape]'") from None
    return warcio
