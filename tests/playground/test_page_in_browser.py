"""The page in a real browser: typing, streaming, stopping, comparing; narrow and wide, light and dark."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from stand_ins import END, SAID, Speech, eventually, served, words

from daybreak import Run
from daybreak.playground.about import about
from daybreak.playground.asked import Limits
from daybreak.playground.continuing import Player
from daybreak.playground.turns import Turns
from daybreak.report.observed import observe
from daybreak.sampling.text import Piece

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
LIMITS = Limits(characters=200, tokens=2000, waiting=2)
COLOURS = """() => [...document.querySelectorAll("#text-0 ins span")].slice(0, 9)
  .map((each) => getComputedStyle(each).backgroundColor)"""
MEASURE = """() => {
  const root = document.documentElement, seen = (each) => each.getClientRects().length > 0;
  const all = (selector) => [...document.querySelectorAll(selector)].filter(seen);
  const cut = (each) => getComputedStyle(each).overflowX !== "visible" && each.scrollWidth > each.clientWidth + 1;
  return {
    overflow: root.scrollWidth - root.clientWidth,
    right: Math.max(...all("#areas *").map((each) => each.getBoundingClientRect().right)),
    cut: all("#areas label, #areas button, #areas span, #areas h3").filter(cut).map((each) => each.textContent),
    text: Math.min(...all("svg[role=img]")
      .map((each) => 13 * each.getBoundingClientRect().width / each.viewBox.baseVal.width)),
    footer: all("footer").length,
    background: getComputedStyle(document.body).backgroundColor,
  };
}"""

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio")]


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=[*FLAGS])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def speeches() -> dict[str, Speech]:
    return {
        "runs/quick": Speech(words(300), seconds=0.001),
        "runs/slow": Speech(words(2000), seconds=0.02),
        "runs/rude": Speech([Piece(text, 0, -1.0) for text in SAID]),
        "runs/broken": Speech(words(3), fault=ZeroDivisionError("by design")),
    }


@pytest.fixture(scope="module")
def address(speeches: dict[str, Speech], trained: Run) -> Iterator[str]:
    shown = {name: about(observe(trained.path, name), "bytes", at) for at, name in enumerate(speeches)}
    with served([Player(name, speeches[name], END, Turns(2), shown[name]) for name in speeches], LIMITS) as address:
        yield address


@pytest.fixture(params=[(1400, "light")], ids=lambda shape: f"{shape[0]}-{shape[1]}")
def page(browser: "Browser", address: str, request: pytest.FixtureRequest) -> "Iterator[Page]":
    """The page, opened where nothing but its own server is there; whatever else is asked for fails the test."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    elsewhere: list[str] = []
    errors: list[str] = []
    page.on(
        "request",
        lambda each: elsewhere.append(each.url) if not each.url.startswith((address, "data:", "blob:")) else None,
    )
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(address)
    page.wait_for_selector("#go")
    yield page
    assert elsewhere == []
    assert errors == []
    context.close()


every_shape = pytest.mark.parametrize(
    "page", [(width, scheme) for width in (380, 900, 1400) for scheme in ("light", "dark")], indirect=True,
    ids=lambda shape: f"{shape[0]}-{shape[1]}",
)  # fmt: skip


def choose(page: "Page", side: int, name: str) -> None:
    page.click(f"#run-{side} input")
    page.get_by_role("option", name=name).click()
    page.wait_for_function("document.querySelectorAll('[role=option]').length === 0")


def wait_for(page: "Page", side: int, said: str) -> None:
    page.locator(f"#status-{side}", has_text=said).wait_for(timeout=20_000)


def text(page: "Page", side: int) -> str:
    return page.locator(f"#text-{side} .text").inner_text()


def test_two_runs_continue_one_prompt_side_by_side(page: "Page", speeches: dict[str, Speech]) -> None:
    page.fill("#prompt textarea", "Once upon")
    page.click("#go")
    wait_for(page, 0, "as many as were asked for")
    assert text(page, 0).startswith("Once upon")
    assert "word-199" in text(page, 0)
    wait_for(page, 1, "tokens, ")
    page.click("#stop")
    wait_for(page, 1, "stopped")
    left, right = (speeches[name].asked[-1] for name in ("runs/quick", "runs/slow"))
    assert left == right
    assert (left.prompt, left.tokens) == ("Once upon", 200)
    sides = [page.locator(f"#text-{side}").bounding_box() for side in (0, 1)]
    assert sides[0] is not None
    assert sides[1] is not None
    assert sides[0]["x"] + sides[0]["width"] <= sides[1]["x"]


def test_text_streams_and_a_stop_stops_the_computation(page: "Page", speeches: dict[str, Speech]) -> None:
    slow = speeches["runs/slow"]
    page.get_by_label("Tokens").first.fill("2000")
    before = slow.made
    page.click("#go")
    lengths = []
    for _ in range(6):
        page.wait_for_timeout(200)
        lengths.append(page.locator("#text-1").inner_text().count("word-"))
    assert lengths == sorted(lengths)
    assert len(set(lengths)) >= 4
    page.click("#stop")
    wait_for(page, 1, "stopped")
    made = slow.made
    time.sleep(0.3)
    assert slow.made == made
    assert slow.at_once == 0
    assert made - before < 2000
    assert page.locator("#text-1").inner_text().count("word-") == made - before  # what was made stays


def test_closing_the_page_stops_the_computation(page: "Page", speeches: dict[str, Speech]) -> None:
    slow = speeches["runs/slow"]
    page.get_by_label("Tokens").first.fill("2000")
    page.click("#go")
    wait_for(page, 1, "tokens, ")
    page.close()
    assert eventually(lambda: slow.at_once == 0)


def test_what_a_model_says_stays_text(page: "Page") -> None:
    choose(page, 0, "runs/rude")
    choose(page, 1, "runs/rude")
    title = page.title()
    page.fill("#prompt textarea", SAID[0])
    page.click("#go")
    wait_for(page, 0, "a stop string came")
    wait_for(page, 1, "a stop string came")
    assert text(page, 0) == SAID[0] + "".join(SAID)
    assert page.title() == title
    assert page.locator("#text-0 img, #text-0 script").count() == 0


def test_colours_come_and_go_without_computing_again(page: "Page", speeches: dict[str, Speech]) -> None:
    choose(page, 1, "runs/quick")
    page.click("#go")
    wait_for(page, 0, "as many as were asked for")
    wait_for(page, 1, "as many as were asked for")  # the same run, which makes one at a time
    asked = len(speeches["runs/quick"].asked)
    assert set(page.evaluate(COLOURS)) == {"rgba(0, 0, 0, 0)"}
    assert not page.locator("#colour-legend").is_visible()
    page.check("#colour input")
    assert len(set(page.evaluate(COLOURS))) == 6
    assert page.locator("#colour-legend").is_visible()
    assert page.locator("#text-0 ins span").first.get_attribute("title") == "100 %"
    page.uncheck("#colour input")
    assert set(page.evaluate(COLOURS)) == {"rgba(0, 0, 0, 0)"}
    assert len(speeches["runs/quick"].asked) == asked


def test_a_mistake_is_said_on_the_page(page: "Page", speeches: dict[str, Speech]) -> None:
    asked = len(speeches["runs/quick"].asked)
    page.evaluate("document.querySelector('#prompt textarea').removeAttribute('maxlength')")
    page.fill("#prompt textarea", "x" * 201)
    page.click("#go")
    wait_for(page, 0, "The prompt has 201 characters, and this page takes 200")
    assert page.locator("#status-0 [role=alert]").is_visible()
    assert len(speeches["runs/quick"].asked) == asked


def test_a_fault_of_the_program_is_owned_up_to(page: "Page") -> None:
    choose(page, 1, "runs/broken")
    page.click("#go")
    wait_for(page, 1, "This failed by a fault of the program; its terminal says where.")
    assert "word-2" in text(page, 1)
    wait_for(page, 0, "as many as were asked for")  # the other side goes on


def test_another_takes_the_next_seed_and_a_run_can_be_changed(page: "Page", speeches: dict[str, Speech]) -> None:
    choose(page, 1, "runs/rude")
    page.locator("#about-1 h3", has_text="runs/rude").wait_for()
    page.click("#another")
    wait_for(page, 1, "a stop string came")
    assert speeches["runs/rude"].asked[-1].sampling.seed == 1
    assert page.get_by_label("Seed").input_value() == "1"


@every_shape
def test_the_page_fits_and_can_be_read(page: "Page", tmp_path: Path) -> None:
    choose(page, 1, "runs/quick")
    page.fill("#prompt textarea", "Once upon a time")
    page.check("#colour input")
    page.get_by_text("More settings").click()
    page.click("#go")
    wait_for(page, 0, "as many as were asked for")
    wait_for(page, 1, "as many as were asked for")
    found = page.evaluate(MEASURE)
    width = page.viewport_size["width"] if page.viewport_size else 0
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert found["overflow"] == 0
    assert found["right"] <= width
    assert found["cut"] == []
    assert found["text"] >= 10  # pixels
    assert found["footer"] == 0
    assert found["background"] == ("rgb(16, 20, 24)" if dark else "rgb(255, 255, 255)")
    page.screenshot(path=tmp_path / "page.png", full_page=True)
