"""The site as it is built: nothing is fetched, nothing is missing, nothing is wider than the screen."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--virtual-time-budget=8000",
)  # fmt: skip
SHOWN = ("index", "tutorial", "budgets", "findings", "parts", "faq", "reference/settings", "reference/command-line")
MEASURE = """<!doctype html>
<iframe id="page" src="{page}.html" style="border: 0; width: {width}px; height: 900px"></iframe>
<pre id="found"></pre>
<script>
document.getElementById("page").onload = (event) => {{
  const page = event.target.contentDocument, root = page.documentElement;
  document.getElementById("found").textContent = JSON.stringify({{
    overflow: root.scrollWidth - root.clientWidth,
    title: page.querySelector("h1").textContent,
    search: page.querySelector("[data-md-component=search-query]") !== null,
    dark: page.body.getAttribute("data-md-color-scheme") === "slate",
  }});
}};
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def served(site: Path) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Its address, and what was asked for, with the answer's code."""
    asked: list[tuple[str, int]] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None: ...

        def send_response(self, code: int, message: str | None = None) -> None:
            asked.append((self.path, code))
            super().send_response(code, message)

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def dom(browser: str, address: str, profile: Path, *flags: str) -> str:
    nowhere = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    command = [browser, *FLAGS, *flags, nowhere, f"--user-data-dir={profile}", "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_pages_fit(
    browser: str, site: Path, served: tuple[str, list[tuple[str, int]]], tmp_path: Path, width: int, scheme: str
) -> None:
    address, asked = served
    for page in SHOWN:
        (site / "measure.html").write_text(MEASURE.format(page=page, width=width))
        colours = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
        text = dom(browser, f"{address}/measure.html", tmp_path, colours, "--window-size=1600,1000")
        found = json.loads(re.search(r'<pre id="found">(.*?)</pre>', text, re.DOTALL)[1])  # type: ignore[index]
        assert found["overflow"] == 0, page
        assert found["title"]
        assert found["search"]
        assert found["dark"] == (scheme == "dark")
    assert {path for path, code in asked if code >= 400 and "favicon" not in path} == set()


@pytest.mark.slow
def test_search_works_from_a_file_without_a_network(browser: str, site: Path, tmp_path: Path) -> None:
    text = dom(browser, f"{(site / 'index.html').as_uri()}?q=nucleus+maxout+slurm", tmp_path)
    results = re.search(r'<ol class="md-search-result__list".*?</ol>', text, re.DOTALL)
    assert results is not None
    assert "gpus.html" in results[0]
