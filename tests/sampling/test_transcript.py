"""Text as its tokens come: whole characters, nothing of a stop string, whatever the tokens."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daybreak.data.tokenizer import Tokenizer, byte_tokenizer, character_tokenizer
from daybreak.errors import UserError
from daybreak.sampling.transcript import Transcript

BYTES = byte_tokenizer()


def shown(text: str, stops: Sequence[str], tokenizer: Tokenizer = BYTES) -> tuple[list[str], bool]:
    """What is shown token by token, and behind the last one."""
    transcript = Transcript(tokenizer, stops)
    bits = []
    for token in tokenizer.encode(text).tolist():
        bits.append(transcript.add(token))
        if transcript.stopped:
            return bits, True
    return [*bits, transcript.finish()], transcript.stopped


def until(text: str, stops: Sequence[str]) -> str:
    """By the rule as it is told: read character by character until one is complete, the longest of those that are."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - len(max(complete, key=len))]
    return text


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("one\n\ntwo", ["\n\n"], "one"),
        ("one\ntwo", ["\n\n"], "one\ntwo"),
        ("aab", ["ab"], "a"),
        ("ababac", ["abac"], "ab"),
        ("日本語です", ["本語"], "日"),
        ("🌅🌇", ["🌇"], "🌅"),  # which begin with the same bytes
        ("xabcd", ["abcd", "c"], "xab"),
        ("xabcd", ["cd", "bcd", "d"], "xa"),
        ("stop", ["stop"], ""),
        ("sto", ["stop"], "sto"),
        ("", ["stop"], ""),
    ],
)
def test_text_ends_in_front_of_the_stop_string_that_is_complete_first(
    text: str, stops: list[str], expected: str
) -> None:
    bits, stopped = shown(text, stops)
    assert "".join(bits) == expected == until(text, stops)
    assert stopped == (text != expected)


@settings(max_examples=300, deadline=None)
@given(st.text("abé🌅", max_size=20), st.lists(st.text("abé🌅", min_size=1, max_size=4), max_size=3), st.booleans())
def test_nothing_of_a_stop_string_is_shown_however_text_falls_into_tokens(
    text: str, stops: list[str], whole_characters: bool
) -> None:
    tokenizer = character_tokenizer(["abé🌅"]) if whole_characters else BYTES
    bits, stopped = shown(text, stops, tokenizer)
    expected = until(text, stops)
    so_far = ""
    for bit in bits:
        so_far += bit
        assert expected.startswith(so_far)
    assert so_far == expected
    assert stopped == any(stop in text for stop in stops)


def test_tokens_of_many_characters_give_what_their_characters_would() -> None:
    ranks = {bytes([value]): value for value in range(256)} | {b"bcd": 256, b"ab": 257}
    tokenizer = Tokenizer("test", r"(?s:.+)", ranks, {"<|endoftext|>": 258})
    for stops in (["cd", "c"], ["abc"], ["bcd", "d"], ["abcd", "b"]):
        transcript = Transcript(tokenizer, stops)
        made = "".join(transcript.add(token) for token in (ord("a"), 256, ord("e")) if not transcript.stopped)
        assert made == until("abcde", stops)


def test_what_may_begin_a_stop_string_is_held_back_no_longer_than_needed() -> None:
    assert shown("a\nb\n\nc", ["\n\n"])[0] == ["a", "", "\nb", "", ""]
    assert shown("abc", [])[0] == ["a", "b", "c", ""]


def test_a_character_that_breaks_off_is_shown_as_such() -> None:
    transcript = Transcript(BYTES, ["x"])
    assert [transcript.add(value) for value in "日".encode()[:2]] == ["", ""]
    assert transcript.finish() == "\ufffd"


def test_stop_strings_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match="empty"):
        Transcript(BYTES, ["a", ""])
    with pytest.raises(UserError, match="no token for 'z'"):
        Transcript(character_tokenizer(["abc"]), ["az"])
    with pytest.raises(UserError, match=r"stop = \['end'\]"):
        Transcript(BYTES, "end")


def test_a_stop_string_that_is_no_text_is_refused() -> None:
    with pytest.raises(UserError, match="is not UTF-8, so it can never come"):
        Transcript(BYTES, ["\udcff"])
