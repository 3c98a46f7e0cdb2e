"""Cleaning: mending against ftfy itself, filters by texts that are made for them."""

import random

import ftfy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daybreak.data.clean import Beginning, Cleaning, cleaned, mended, reason_to_drop
from daybreak.data.words import words_of

LINES = st.sampled_from(
    ["plain ASCII", "a < b", "&amp; &lt;b&gt;", "âœ” mojibake", "“curly”", "ﬁne ligature", "ＬＯＵＤ", "\x07bell",
     "\x1b[36mblue", "cafe\u0301", "\ufeffmark", "\u2028", "\r", "\x85", "caf\xe9", "schÃ¶n", "", "\t tab", "\ud83d"]
)  # fmt: skip


@given(st.lists(LINES, max_size=8), st.sampled_from(["\n", "\r\n", " "]))
def test_mending_is_ftfy_on_the_whole_text(lines: list[str], between: str) -> None:
    text = between.join(lines)
    assert mended(text) == ftfy.fix_text(text)


@given(st.text(max_size=80))
def test_mending_is_ftfy_on_any_text(text: str) -> None:
    assert mended(text) == ftfy.fix_text(text)


def prose(words: int = 300, seed: int = 0) -> str:
    """Sentences of words that hardly repeat."""
    generator = random.Random(seed)
    letters = "etaoinshrdlu"
    made = ["".join(generator.choices(letters, k=generator.randrange(2, 9))) for _ in range(words)]
    return ". ".join(" ".join(made[start : start + 12]) for start in range(0, words, 12)) + "."


def reason(text: str, cleaning: Cleaning, date: str | None = None) -> str | None:
    return reason_to_drop(Beginning.of(text, words_of(text)), date, cleaning, len)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (prose(), None),
        (prose(50), None),
        (prose(49), "few words"),
        (" ".join(["ab"] * 30 + ["cd"] * 30), "odd words"),
        (" ".join(["incomprehensibilities"] * 60), "odd words"),
        (prose() + " #" * 40, "many symbols"),
        (prose(100) + " " + "31415926 " * 60, "few letters"),
        (prose(100) + " " + "()[]{}<>/=+ " * 60, "few letters"),
        (prose(120) + "\n" + "The same long line of boilerplate stands here again and again.\n" * 8, "repeated lines"),
        (prose(120) + " spam and eggs" * 40, "repeated phrases"),
        (prose(60, 1) + " " + prose(60, 1), "repeated phrases"),
        ("\n".join(f"- {prose(12, seed)}" for seed in range(12)), "list"),
        ("\n".join(f"{prose(12, seed)[:-1]}..." for seed in range(12)), "list"),
        ("\n".join(f"{prose(4, seed)[:-1]}" for seed in range(40)), "list"),
    ],
)  # fmt: skip
def test_a_filter_drops_what_it_is_for(text: str, expected: str | None) -> None:
    assert reason(text, Cleaning(filter=True)) == expected
    assert reason(text, Cleaning()) is None


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("2018-06-01", None),
        ("2020-12-31", None),
        ("2018-05-31", "date"),
        ("2021-01-01", "date"),
        (None, "no date"),
    ],
)
def test_documents_of_other_dates_go(date: str | None, expected: str | None) -> None:
    assert reason("text", Cleaning(since="2018-06-01", until="2020-12-31"), date) == expected


def test_documents_of_rare_words_go() -> None:
    assert reason("x" * 10, Cleaning(tokens_per_character=0.99)) == "rare words"
    assert reason("x" * 10, Cleaning(tokens_per_character=1.0)) is None


def test_documents_in_other_languages_go() -> None:
    pytest.importorskip("py3langid")
    english = "The committee will meet again on Thursday to discuss the proposal in more detail."
    german = "Der Ausschuss wird am Donnerstag erneut zusammentreten, um den Vorschlag genauer zu besprechen."
    assert reason(english, Cleaning(language="en")) is None
    assert reason(german, Cleaning(language="en")) == "language"
    assert reason(german, Cleaning(language="de")) is None


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to a.b+c@mail.example.org.", "write to [e-mail]."),
        ("<jo@x.io>,<ann_e@y.co.uk>", "<[e-mail]>,<[e-mail]>"),
        ("the host 192.168.0.255 answers", "the host [IP] answers"),
        ("at 2001:0db8:85a3:0000:0000:8a2e:0370:7334, twice", "at [IP], twice"),
        ("version 1.2.3.4.5 and 300.1.2.3", "version 1.2.3.4.5 and 300.1.2.3"),
        ("an @ sign, user@localhost, 12:30:45", "an @ sign, user@localhost, 12:30:45"),
    ],
)
def test_addresses_are_masked(text: str, masked: str) -> None:
    assert cleaned(text, Cleaning(mask_personal=True)) == masked
    assert cleaned(text, Cleaning()) == text
