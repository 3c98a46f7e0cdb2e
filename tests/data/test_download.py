"""Downloads, from a server on this machine that behaves badly on purpose."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from daybreak.data import download as module
from daybreak.data.corpora import open_sources
from daybreak.data.documents import Tally
from daybreak.data.download import cache_folder, download, download_stated
from daybreak.errors import UserError
from daybreak.files import locked

BODY = b"To be, or not to be\n" * 500
SHA256 = hashlib.sha256(BODY).hexdigest()

Answer = Callable[[BaseHTTPRequestHandler], None]


def answer(body: bytes, status: int = 200, length: int | None = None, location: str | None = None) -> Answer:
    def send(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        if location is not None:
            request.send_header("Location", location)
        request.send_header("Content-Length", str(len(body) if length is None else length))
        request.end_headers()
        request.wfile.write(body)

    return send


GOOD = answer(BODY)
CUT_OFF = answer(BODY[:-100], length=len(BODY))
SHORT = answer(BODY[:-100])
LONG = answer(BODY + b"more")
WRONG = answer(BODY.replace(b"be", b"xx", 1))
BROKEN = answer(b"oops", status=500)
MISSING = answer(b"no", status=404)


def rest(request: BaseHTTPRequestHandler) -> None:
    """What was asked for, as a server answers that knows Range."""
    _send_rest(request, BODY)


def rest_cut_off(request: BaseHTTPRequestHandler) -> None:
    """A thousand bytes more, then the end."""
    _send_rest(request, BODY, at_most=1000)


def rest_of_another_size(request: BaseHTTPRequestHandler) -> None:
    _send_rest(request, BODY + b"more")


def _send_rest(request: BaseHTTPRequestHandler, body: bytes, at_most: int | None = None) -> None:
    asked = request.headers["Range"]
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
    request.send_response(206 if asked else 200)
    if asked:
        request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
    request.send_header("Content-Length", str(len(body) - start))
    request.end_headers()
    request.wfile.write(body[start:] if at_most is None else body[start : start + at_most])


class Server:
    """Answers one request after another as it was told; the last answer stays."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[str] = []
        self.ranges: list[str | None] = []
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                outer.ranges.append(self.headers["Range"])
                chosen = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                chosen(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Be quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/file.txt"

    def hang(self, request: BaseHTTPRequestHandler) -> None:
        self.released.wait(10)

    def hang_inside_the_body(self, request: BaseHTTPRequestHandler) -> None:
        answer(BODY[:100], length=len(BODY))(request)
        self.released.wait(10)

    def hang_up(self, request: BaseHTTPRequestHandler) -> None:
        request.connection.close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.released.set()
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAYBREAK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fetch(server: Server) -> Path:
    return download(server.url, "file.txt", size=len(BODY), sha256=SHA256, pause_seconds=0)


def test_a_good_file_is_kept_under_its_name(server: Server, cache: Path) -> None:
    server.answers = [GOOD]
    path = fetch(server)
    assert path == cache / "file.txt"
    assert path.read_bytes() == BODY
    assert [each.name for each in cache.iterdir()] == ["file.txt"]


def test_a_kept_file_is_not_fetched_again(server: Server, cache: Path) -> None:
    server.answers = [GOOD]
    assert fetch(server) == fetch(server)
    assert server.requests == ["/file.txt"]


def test_a_kept_file_that_was_damaged_is_fetched_again(server: Server, cache: Path) -> None:
    cache.mkdir()
    (cache / "file.txt").write_bytes(BODY[:-1])
    server.answers = [GOOD]
    assert fetch(server).read_bytes() == BODY


def test_a_redirect_is_followed(server: Server, cache: Path) -> None:
    server.answers = [answer(b"", status=302, location="/elsewhere.txt"), GOOD]
    assert fetch(server).read_bytes() == BODY
    assert server.requests == ["/file.txt", "/elsewhere.txt"]


@pytest.mark.parametrize("bad", [CUT_OFF, SHORT, LONG, WRONG, BROKEN], ids=["cut", "short", "long", "wrong", "500"])
def test_a_second_attempt_mends_a_bad_first_one(bad: Answer, server: Server, cache: Path) -> None:
    server.answers = [bad, GOOD]
    assert fetch(server).read_bytes() == BODY
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (CUT_OFF, "9,900 bytes instead of 10,000"),
        (SHORT, "9,900 bytes instead of 10,000"),
        (LONG, "10,001 bytes instead of 10,000"),
        (WRONG, "SHA-256"),
        (BROKEN, "Internal Server Error"),
        (MISSING, "Not Found"),
    ],
    ids=["cut", "short", "long", "wrong", "500", "404"],
)
def test_bad_bytes_never_take_the_name(bad: Answer, said: str, server: Server, cache: Path) -> None:
    server.answers = [bad]
    with pytest.raises(UserError, match=rf"(?s){server.url}.*({said}).*daybreak prepare"):
        fetch(server)
    assert len(server.requests) == 3
    assert not (cache / "file.txt").exists()


def test_wrong_bytes_of_the_right_number_are_not_blamed_on_their_number(server: Server, cache: Path) -> None:
    server.answers = [WRONG]
    with pytest.raises(UserError, match=r"(?i)sha-256|hash|content"):
        fetch(server)


def test_a_damaged_kept_file_is_never_handed_out_when_the_server_fails(server: Server, cache: Path) -> None:
    cache.mkdir()
    (cache / "file.txt").write_bytes(b"damaged")
    server.answers = [BROKEN]
    with pytest.raises(UserError):
        fetch(server)


@pytest.mark.parametrize("how", ["hang", "hang_inside_the_body", "hang_up"])
def test_a_server_that_falls_silent_is_given_up(
    how: str, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_SECONDS", 0.1)
    server.answers = [getattr(server, how)]
    with pytest.raises(UserError, match="could not be downloaded"):
        fetch(server)
    assert len(server.requests) == 3
    assert not (cache / "file.txt").exists()


def test_a_server_that_is_not_there_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(UserError, match=r"http://127.0.0.1:9/file.*refused"):
        download("http://127.0.0.1:9/file", "file", size=1, sha256=SHA256, pause_seconds=0)


def test_pauses_double(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    server.answers = [BROKEN]
    with pytest.raises(UserError):
        download(server.url, "file.txt", size=len(BODY), sha256=SHA256, pause_seconds=3.0)
    assert pauses == [3.0, 6.0]


def test_the_cache_lies_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DAYBREAK_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home/.cache/daybreak"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg/daybreak"
    monkeypatch.setenv("DAYBREAK_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


def part_of(cache: Path) -> Path:
    return cache / ".file.txt.partial" / "part"


def leave_a_part(cache: Path, content: bytes) -> None:
    part_of(cache).parent.mkdir(parents=True)
    part_of(cache).write_bytes(content)


def test_a_download_goes_on_where_it_broke_off(server: Server, cache: Path) -> None:
    server.answers = [answer(BODY[:4000], length=len(BODY)), rest]
    assert fetch(server).read_bytes() == BODY
    assert server.ranges == [None, "bytes=4000-"]
    assert [each.name for each in cache.iterdir()] == ["file.txt"]


def test_what_a_killed_download_left_is_gone_on_from(server: Server, cache: Path) -> None:
    leave_a_part(cache, BODY[:7777])
    server.answers = [rest]
    assert fetch(server).read_bytes() == BODY
    assert server.ranges == ["bytes=7777-"]


def test_what_was_whole_but_had_not_its_name_is_not_fetched_again(server: Server, cache: Path) -> None:
    leave_a_part(cache, BODY)
    assert fetch(server).read_bytes() == BODY
    assert server.requests == []


def test_breaks_are_endured_as_long_as_something_new_comes(server: Server, cache: Path) -> None:
    server.answers = [rest_cut_off]
    assert fetch(server).read_bytes() == BODY
    assert server.ranges == [None, *(f"bytes={start}-" for start in range(1000, 10_000, 1000))]


def test_a_failed_download_keeps_its_part_for_the_next_call(server: Server, cache: Path) -> None:
    server.answers = [answer(BODY[:4000], length=len(BODY)), BROKEN]
    with pytest.raises(UserError, match="Internal Server Error"):
        fetch(server)
    assert part_of(cache).read_bytes() == BODY[:4000]
    server.answers = [rest]
    assert fetch(server).read_bytes() == BODY
    assert server.ranges[-1] == "bytes=4000-"


def test_a_server_that_ignores_range_is_read_from_the_beginning(server: Server, cache: Path) -> None:
    leave_a_part(cache, BODY[:4000])
    server.answers = [GOOD]
    assert fetch(server).read_bytes() == BODY
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "unfit", [rest_of_another_size, answer(b"", status=416)], ids=["another size", "range not satisfiable"]
)
def test_a_part_that_does_not_fit_what_the_server_has_is_begun_anew(unfit: Answer, server: Server, cache: Path) -> None:
    leave_a_part(cache, BODY[:4000])
    server.answers = [unfit, rest]
    assert fetch(server).read_bytes() == BODY
    assert server.ranges == ["bytes=4000-", None]


@pytest.mark.parametrize("part", [b"x" * 4000, b"x" * 10_000, b"x" * 10_001], ids=["begun", "full", "too long"])
def test_a_part_of_something_else_is_begun_anew(part: bytes, server: Server, cache: Path) -> None:
    leave_a_part(cache, part)
    server.answers = [rest]
    assert fetch(server).read_bytes() == BODY
    assert server.ranges[-1] is None


def test_two_downloads_of_the_same_file_do_not_meet(server: Server, cache: Path) -> None:
    with locked(cache / ".file.txt.partial"), pytest.raises(UserError, match="in use by process"):
        fetch(server)


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/file.txt", "file:///etc/hostname"])
def test_a_redirect_to_anything_but_the_web_is_refused(location: str, server: Server, cache: Path) -> None:
    server.answers = [answer(b"", status=302, location=location)]
    with pytest.raises(UserError, match="could not be downloaded"):
        fetch(server)
    assert not (cache / "file.txt").exists()


def test_a_full_disk_is_noticed_before_the_download(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(UserError, match="no space"):
        fetch(server)
    assert server.requests == []


def test_a_url_that_states_size_and_hash_is_a_source(server: Server, cache: Path) -> None:
    server.answers = [rest]
    url = f"{server.url}#sha256={SHA256.upper()}&size={len(BODY)}"
    (source,) = open_sources([url])
    (each,) = source.inputs
    assert each.name == server.url
    assert ["".join(document.pieces) for document in each.read(Tally())] == [BODY.decode()]
    assert each.identity()["sha256"] == SHA256
    assert download_stated(url)[0].suffix == ".txt"
    assert server.requests == ["/file.txt"]
