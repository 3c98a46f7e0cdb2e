"""A model of the hub, from a server on this machine that answers as the hub does."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from made_models import scrambled

from daybreak.data.tokenizer import byte_tokenizer
from daybreak.errors import UserError
from daybreak.exchange.read import read_model
from daybreak.exchange.write import write_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """One model, `made/gpt2`, and what was asked of it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder, self.asked = folder, set[str]()


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._file(body=False)

    def do_GET(self) -> None:
        if not self.path.startswith("/api/models/made/gpt2"):
            self._file(body=True)
            return
        files = sorted(self.server.folder.iterdir())
        if "/tree/" in self.path:
            listed = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": COMMIT} for f in files]
            self._send(json.dumps(listed).encode(), body=True)
            return
        info = {"id": "made/gpt2", "sha": COMMIT, "siblings": [{"rfilename": file.name} for file in files]}
        self._send(json.dumps(info).encode(), body=True)

    def _file(self, *, body: bool) -> None:
        name = self.path.rsplit("/", 1)[-1]
        path = self.server.folder / name
        if "/made/gpt2/resolve/" not in self.path or not path.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.server.asked.add(name)
        self._send(path.read_bytes(), body=body)

    def _send(self, content: bytes, *, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    import huggingface_hub

    folder = tmp_path / "hub"
    folder.mkdir()
    write_model(folder, scrambled(), byte_tokenizer())
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    server = Hub(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    constants: Any = huggingface_hub.constants
    for name, value in {
        "ENDPOINT": endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, endpoint),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr("daybreak.exchange.hub.avoid_an_unreachable_hub", lambda: None)
    yield server
    server.shutdown()


def test_only_settings_tokenizer_and_safetensors_are_fetched(hub: Hub) -> None:
    read = read_model("hf:made/gpt2")
    assert (read.architecture, read.config) == ("GPT2LMHeadModel", scrambled().config)
    assert hub.asked == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"
    }  # fmt: skip


def test_a_model_that_is_not_there_is_said(hub: Hub) -> None:
    with pytest.raises(UserError, match="hf:made/other cannot be downloaded"):
        read_model("hf:made/other")
