"""Pages in a real browser: narrow and wide, light and dark, nothing cut off and nothing fetched."""

import functools
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from daybreak import Run, write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--virtual-time-budget=5000",
)  # fmt: skip
# Beside the page, since it forbids scripts of its own; what is measured becomes the text of this document.
MEASURE = """<!doctype html>
<iframe id="page" src="page.html" style="border: 0; width: {width}px; height: 900px"></iframe>
<pre id="found"></pre>
<script>
document.getElementById("page").onload = (event) => {{
  const page = event.target.contentDocument, root = page.documentElement;
  const style = (element) => event.target.contentWindow.getComputedStyle(element);
  const seen = (element) => element.getClientRects().length > 0;
  const pictures = [...page.querySelectorAll("svg[role=img]")].filter(seen);
  const plots = pictures.map((each) => each.getBoundingClientRect());
  const sizes = pictures.map((each, at) => 13 * plots[at].width / each.viewBox.baseVal.width);
  page.querySelector("label:nth-of-type(3)").click();
  document.getElementById("found").textContent = JSON.stringify({{
    overflow: root.scrollWidth - root.clientWidth,
    background: style(page.body).backgroundColor,
    plots: plots.map((box) => [box.left, box.right, box.width, box.height]),
    text: Math.min(...sizes),
    chosen: [...page.querySelectorAll(".panel")].map(seen),
  }});
}};
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    return found


@pytest.fixture(scope="module")
def served(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, list[str]]]:
    """A folder with a page, its address, and the paths that were asked for."""
    folder, asked = tmp_path_factory.mktemp("served"), []
    write_report(trained.path, folder / "page.html")

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def measured(browser: str, served: tuple[Path, str, list[str]], width: int, scheme: str, profile: Path) -> Any:
    folder, address, _ = served
    (folder / "measure.html").write_text(MEASURE.format(width=width))
    colours = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    flags = (*FLAGS, colours, f"--user-data-dir={profile}", "--window-size=1600,1000")
    command = [browser, *flags, "--dump-dom", f"{address}/measure.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr
    return json.loads(found[1])


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 900, 1400])
def test_a_page_fits_and_can_be_read(
    browser: str, served: tuple[Path, str, list[str]], tmp_path: Path, width: int, scheme: str
) -> None:
    found = measured(browser, served, width, scheme, tmp_path)
    assert found["overflow"] == 0
    assert found["background"] == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(16, 20, 24)")
    assert len(found["plots"]) >= 5
    assert all(left >= 0 and right <= width and high > 100 for left, right, _, high in found["plots"])
    assert found["text"] >= 10  # pixels
    assert found["chosen"] == [False, False, True, False]  # the third switch was pressed
    assert set(served[2]) <= {"/measure.html", "/page.html", "/favicon.ico"}
