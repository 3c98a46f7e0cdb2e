"""Data sets of the hub: folders of data files, and a server on this machine that answers as the hub does."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pytest
from pyarrow import parquet

from daybreak.data.documents import PLAIN, Fields, Tally
from daybreak.data.hub import open_hub
from daybreak.errors import UserError

TEXTS = [[f"shard {shard}, row {row}, täglich" for row in range(5)] for shard in range(3)]
README = """---
configs:
- config_name: small
  data_files: small/*.parquet
  default: true
- config_name: other
  data_files: other/*.parquet
---
A data set.
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYBREAK_CACHE", str(tmp_path / "cache"))


def data_set(folder: Path) -> Path:
    """Two configurations of Parquet: three shards, and one."""
    (folder / "small").mkdir(parents=True)
    (folder / "other").mkdir()
    for shard, texts in enumerate(TEXTS):
        table = pa.table({"id": range(5), "text": texts, "date": [f"2020-01-0{shard + 1}"] * 5})
        parquet.write_table(table, folder / f"small/train-{shard:05}-of-00003.parquet")
    parquet.write_table(pa.table({"body": ["one", "two"]}), folder / "other/train.parquet")
    (folder / "README.md").write_text(README)
    return folder


def texts_of(source: str, fields: Fields = PLAIN) -> list[list[str]]:
    return [["".join(document.pieces) for document in each.read(Tally())] for each in open_hub(source, fields)]


def test_a_folder_is_read_shard_by_shard_in_order(tmp_path: Path) -> None:
    folder = data_set(tmp_path / "mine")
    inputs = open_hub(f"hub:{folder}", PLAIN)
    assert [["".join(document.pieces) for document in each.read(Tally())] for each in inputs] == TEXTS
    document = next(pickle.loads(pickle.dumps(inputs[1])).read(Tally()))  # noqa: S301
    assert (document.origin, document.date) == (f"hub:{folder}#1:1", "2020-01-02")
    assert len({json.dumps(each.identity()) for each in inputs}) == 3


def test_a_configuration_and_a_key_of_the_text_can_be_named(tmp_path: Path) -> None:
    folder = data_set(tmp_path / "mine")
    assert texts_of(f"hub:{folder}:other", Fields(text_key="body")) == [["one", "two"]]
    with pytest.raises(UserError, match=r'expected a string under "text", found body; --text-key'):
        texts_of(f"hub:{folder}:other")


def test_the_identity_of_a_folder_changes_with_its_files(tmp_path: Path) -> None:
    folder = data_set(tmp_path / "mine")
    first = open_hub(f"hub:{folder}", PLAIN)[0].identity()
    assert open_hub(f"hub:{folder}", PLAIN)[0].identity() == first
    os.utime(folder / "small/train-00002-of-00003.parquet", ns=(0, 0))
    assert open_hub(f"hub:{folder}", PLAIN)[0].identity() != first


def test_a_file_of_text_is_one_document_here_too(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in "ab":
        (tmp_path / "mine" / f"{name}.txt").write_text(f"{name}: one\n\ntwo\n")
    found = texts_of(f"hub:{tmp_path / 'mine'}")
    assert [text for texts in found for text in texts] == ["a: one\n\ntwo\n", "b: one\n\ntwo\n"]


@pytest.mark.parametrize("source", ["hub:", "hub:parquet", "hub:a/b/c", "hub:{folder}:absent", "hub:{folder}@main"])
def test_a_wrong_name_is_answered_with_a_message(source: str, tmp_path: Path) -> None:
    folder = data_set(tmp_path / "mine")
    with pytest.raises(UserError, match="hub:"):
        open_hub(source.format(folder=folder), PLAIN)


def test_a_data_set_with_a_script_is_refused_and_the_script_is_not_run(tmp_path: Path) -> None:
    folder = data_set(tmp_path / "mine")
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    with pytest.raises(UserError, match="scripts are no longer supported"):
        texts_of(f"hub:{folder}")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["train.tar", "train.h5", "train.png"])
def test_a_data_set_of_another_format_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_bytes(b"rubbish")
    with pytest.raises(UserError, match="is a data set of"):
        open_hub(f"hub:{tmp_path / 'mine'}", PLAIN)


class Hub:
    """Serves one folder as the data set `owner/name`, at one commit, by the parts of the hub's protocol in use."""

    COMMIT = "0123456789abcdef0123456789abcdef01234567"

    def __init__(self, folder: Path) -> None:
        self.files = {
            path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }
        self.requests: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub.answer(self, None)

            def do_GET(self) -> None:
                hub.answer(self, None)

            def do_POST(self) -> None:
                hub.answer(self, self.rfile.read(int(self.headers["Content-Length"])))

            def log_message(self, format: str, *args: Any) -> None:
                """Be quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def answer(self, request: BaseHTTPRequestHandler, body: bytes | None) -> None:
        path = unquote(urlsplit(request.path).path)
        self.requests.append(f"{request.command} {path}")
        api, files = "/api/datasets/owner/name", "/datasets/owner/name/resolve/"
        if path in (api, f"{api}/revision/main", f"{api}/revision/{self.COMMIT}"):
            siblings = [{"rfilename": name} for name in self.files]
            self._send(request, {"id": "owner/name", "sha": self.COMMIT, "siblings": siblings, "tags": []})
        elif path.startswith(f"{api}/tree/"):
            below = path.removeprefix(f"{api}/tree/").partition("/")[2]
            self._send(request, self._listing(below and below + "/", "recursive=true" in request.path.lower()))
        elif path.startswith(f"{api}/paths-info/"):
            asked = json.loads(body or b"{}")["paths"]
            folders = [
                {"type": "directory", "path": name, "oid": "0" * 40} for name in asked if name in ("small", "other")
            ]
            self._send(request, [self._entry(name) for name in asked if name in self.files] + folders)
        elif path.startswith(files) and (name := path.removeprefix(files).partition("/")[2]) in self.files:
            self._send_file(request, self.files[name])
        else:
            self._send(request, {"error": "Entry not found"}, status=404)

    def _listing(self, below: str, recursive: bool) -> list[dict[str, Any]]:
        names = [name for name in self.files if name.startswith(below)]
        if recursive:
            return [self._entry(name) for name in names]
        folders = sorted({name.removeprefix(below).split("/")[0] for name in names if "/" in name.removeprefix(below)})
        here = [self._entry(name) for name in names if "/" not in name.removeprefix(below)]
        return here + [self._folder(below + name) for name in folders]

    def _folder(self, name: str) -> dict[str, Any]:
        return {"type": "directory", "path": name, "size": 0, "oid": "0" * 40}

    def _entry(self, name: str) -> dict[str, Any]:
        content = self.files[name]
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def _send(self, request: BaseHTTPRequestHandler, answer: object, status: int = 200) -> None:
        content = json.dumps(answer).encode()
        request.send_response(status)
        if status == 404:
            request.send_header("X-Error-Code", "EntryNotFound")
        request.send_header("X-Repo-Commit", self.COMMIT)
        request.send_header("Content-Type", "application/json")
        self._finish(request, content)

    def _send_file(self, request: BaseHTTPRequestHandler, content: bytes) -> None:
        start, end = 0, len(content)
        if asked := request.headers["Range"]:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) + 1 if last else end, end)
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        else:
            request.send_response(200)
        request.send_header("X-Repo-Commit", self.COMMIT)
        request.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self._finish(request, content[start:end])

    def _finish(self, request: BaseHTTPRequestHandler, content: bytes) -> None:
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(data_set(tmp_path / "served"))
    thread = threading.Thread(target=hub.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield hub
    hub.http.shutdown()
    hub.http.server_close()
    thread.join()


def in_another_process(hub: Hub, home: Path, *sources: str) -> list[Any]:
    """Texts and identities by source, as a process finds them whose hub is `hub` and whose home is `home`."""
    program = (
        "import json, sys; from daybreak.data.corpora import open_source; from daybreak.data.documents import Tally\n"
        "read = lambda each: [''.join(document.pieces) for document in each.read(Tally())]\n"
        "print(json.dumps([[(read(each), each.identity()) for each in open_source(s).inputs] for s in sys.argv[1:]]))"
    )
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_"))}
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program, *sources],
        env={**kept, "HF_ENDPOINT": hub.url, "HOME": str(home), "no_proxy": "127.0.0.1", "HF_TOKEN": "hf_canary"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "hf_canary" not in done.stdout + done.stderr
    return list(json.loads(done.stdout))


def test_a_data_set_of_the_hub_is_streamed_at_the_commit_it_has_when_opened(hub: Hub, tmp_path: Path) -> None:
    latest, pinned = in_another_process(hub, tmp_path / "home", "hub:owner/name", f"hub:owner/name:small@{Hub.COMMIT}")
    for shards in (latest, pinned):
        assert [texts for texts, _ in shards] == TEXTS
        assert {identity["revision"] for _, identity in shards} == {Hub.COMMIT}
    assert all(Hub.COMMIT in request for request in hub.requests if ".parquet" in request)
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []
