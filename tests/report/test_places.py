"""A page that is shared names folders and files, and says nothing of where they lie on a machine."""

from pathlib import Path

import pytest
from page_reader import read

from daybreak import Recipe, Run, write_report
from daybreak.data.shards import Corpus
from daybreak.report.places import corpora, with_names, without_folders


def test_a_page_has_no_path_of_the_machine(trained: Run, corpus: Corpus, tmp_path: Path) -> None:
    page = read(write_report(trained.path, tmp_path / "shared.html").read_bytes())
    assert str(corpus.path.parent) not in page.content
    assert str(trained.path.parent) not in page.content
    assert f'corpus = "{corpus.path.name}"' in page.text
    assert page.row("corpora and their identities") == [f"{corpus.path.name} ({corpus.identity[:12]})"]


def test_items_of_benchmarks_are_named_by_their_files() -> None:
    recipe = Recipe.load(
        "gpt2-tiny", "data.corpus=/home/me/wiki/", "tasks.every=25%", "tasks.names=['arc']",
        "tasks.folder=/home/me/own", "tasks.local=['arc=/home/me/arc.jsonl', 'arc:train=b.jsonl']",
    )  # fmt: skip
    named = with_names(recipe)
    assert (named.tasks.folder, named.tasks.local) == ("own", ("arc=arc.jsonl", "arc:train=b.jsonl"))
    assert named.data.corpus == "wiki"
    assert "/home" not in named.to_toml()


def test_corpora_of_a_mixture_have_their_own_identities() -> None:
    mixture = "data.mixture=[{corpus='/data/a', share=0.5}, {corpus='b', share=0.5}]"
    recipe = Recipe.load("gpt2-tiny", mixture)
    known = {"mixture": [{"corpus": "a", "identity": "1" * 64}, {"corpus": "b", "identity": "2" * 64}]}
    assert corpora(recipe, known) == ["a (111111111111)", "b (222222222222)"]
    assert corpora(recipe, {}) == ["a", "b"]
    assert corpora(Recipe.load("gpt2-tiny"), {}) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data.corpus=/home/me/wiki", "data.corpus=wiki"),
        ("another version of the corpus, /home/me/wiki here", "another version of the corpus, wiki here"),
        ("tasks.local: ['a=/x/a.jsonl', '/y/z/b'] here", "tasks.local: ['a=a.jsonl', 'b'] here"),
        ("runs/stock.toml", "runs/stock.toml"),
        ("1/2 and 3 / 4 tokens/s", "1/2 and 3 / 4 tokens/s"),
        ("https://example.org/a/b", "https://example.org/a/b"),
    ],
)
def test_folders_are_left_out_of_words(text: str, expected: str) -> None:
    assert without_folders(text) == expected
