"""A run as the page has it."""

import re
from threading import Event
from xml.etree import ElementTree

import pytest
from html_reader import read

from daybreak import Run
from daybreak.playground.about import about
from daybreak.playground.asked import Asked, Limits
from daybreak.playground.continuing import continued
from daybreak.playground.play import player_of
from daybreak.report.observed import observe
from daybreak.sampling.settings import SamplingConfig


def test_a_run_says_on_the_page_what_it_says_elsewhere(trained: Run) -> None:
    prompt, sampling = "def main(", SamplingConfig(temperature=0.8, top_k=50, seed=5)
    expected = trained.sample(prompt, tokens=40, sampling=sampling)[0].completion
    *_, last = continued(player_of(trained, "tiny", 0, Limits()), Asked(prompt, 40, sampling), Event())
    found = read(last.text).text
    assert found[0] == ("prompt", None, prompt)
    assert "".join(text for class_, _, text in found if class_ != "prompt") == printable(expected)


def test_the_facts_are_those_of_the_run(trained: Run) -> None:
    words = [text for _, _, text in read(about(observe(trained.path, "tiny"), "bytes", 3)).text]
    assert trained.final_loss is not None
    parameters = sum(each.numel() for each in trained.model.parameters())
    for fact in (f"{trained.final_loss:.4f}", f"{parameters:,}", "gpt2-tiny", "20 steps", "tiny"):
        assert fact in words
    assert any("1,280 tokens" in each for each in words)  # 20 steps of 64


def test_the_loss_curve_has_training_and_validation_and_ids_of_its_own(trained: Run) -> None:
    made = ElementTree.fromstring(about(observe(trained.path, "tiny"), "bytes", 3))
    assert [each.text or each[0].tail for each in made.iter("li")] == ["training loss", "validation loss"]
    svg = made.find("figure/svg[@role='img']")
    assert svg is not None
    assert svg.get("aria-label") == "loss against steps"
    ids = [each.get("id") for each in svg.iter() if each.get("id")]
    assert ids
    assert all(str(each).startswith("run-3-") for each in ids)


@pytest.mark.parametrize("prompt", ["", "a" * 200])
def test_no_prompt_and_one_longer_than_the_context_are_continued(trained: Run, prompt: str) -> None:
    *_, last = continued(player_of(trained, "tiny", 0, Limits()), Asked(prompt, 30, SamplingConfig()), Event())
    assert re.search(r"\b\d+ tokens, ", last.status)


def printable(text: str) -> str:
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else sign.encode("unicode_escape").decode() for sign in text
    )
