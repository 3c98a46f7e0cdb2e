"""Words and runs of words, against a regular expression and Python's own sets."""

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from daybreak.data.words import shingles, words_of

WORD = re.compile(r"(?:[0-9a-z]|[^\x00-\x7f\u2000-\u207f\u3000-\u303f\uff00-\uff0f])+")
TEXTS = st.text(st.sampled_from("abAB01 .,-\n“”–éß日🌍²ₙ\u2066。、！Ａ日本"), max_size=60)


@given(TEXTS)
def test_words_are_those_of_the_pattern(text: str) -> None:
    expected = WORD.findall(text.lower())
    found = words_of(text)
    assert found.lengths.tolist() == [len(word) for word in expected]
    # Two words have the same hash exactly where they are the same.
    by_hash = {}
    for word, value in zip(expected, found.hashes.tolist(), strict=True):
        assert by_hash.setdefault(word, value) == value
    assert len(set(by_hash.values())) == len(by_hash)


def test_a_word_has_the_same_hash_wherever_it_stands() -> None:
    alone = words_of("dawn").hashes[0]
    for before in range(0, 9000, 37):
        assert words_of("x " * before + "Dawn, again").hashes[before] == alone


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 8))
def test_runs_are_the_same_where_their_words_are(words: list[int], width: int) -> None:
    found = shingles(np.array(words, dtype=np.uint64), width).tolist()
    width = min(width, len(words))
    runs = [tuple(words[start : start + width]) for start in range(len(words) - width + 1)] if words else []
    assert len(found) == len(runs)
    assert len(set(found)) == len(set(runs)) == len(set(zip(found, runs, strict=True)))
