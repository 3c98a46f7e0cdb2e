"""From a request to what the page shows."""

import re
from collections.abc import Iterator
from itertools import pairwise
from threading import Event

import pytest
from stand_ins import END, Speech, player, words

from daybreak.errors import UserError
from daybreak.playground.asked import Asked
from daybreak.playground.continuing import continued
from daybreak.sampling.settings import SamplingConfig
from daybreak.sampling.text import Piece

ASKED = Asked("Once", 10, SamplingConfig())


def plain(html: str) -> str:
    return re.sub(r"<[^>]*>", "", html)


def test_a_continuation_grows_and_ends_with_what_it_came_to() -> None:
    shown = list(continued(player("a", Speech(words(10), seconds=0.02)), ASKED, Event()))
    texts = [plain(each.text) for each in shown]
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert len(set(texts)) > 2
    assert texts[-1] == "Once" + "".join(piece.text for piece in words(10))
    assert all("busy" in each.status for each in shown[:-1])
    assert "busy" not in shown[-1].status
    assert plain(shown[-1].status).startswith("10 tokens, ")
    mean = -sum([*range(9), 0]) / 10
    assert f"log-probability −{-mean:.2f} a token; as many as were asked for." in shown[-1].status


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([*words(3), Piece("", END, -1.0)], "the model ended the text"),
        (words(3), "a stop string came"),
        ([*words(9), Piece("", END, -1.0)], "the model ended the text"),
    ],
)
def test_the_end_is_explained(pieces: list[Piece], said: str) -> None:
    *_, last = continued(player("a", Speech(pieces)), ASKED, Event())
    assert said in last.status


def test_a_stop_ends_the_computation_and_keeps_what_was_made() -> None:
    speech, stop = Speech(words(10_000), seconds=0.001), Event()
    asked = Asked("Once", 10_000, SamplingConfig())
    for shown in continued(player("a", speech), asked, stop):
        if "word-5" in shown.text:
            stop.set()
    assert "; stopped." in shown.status
    assert "word-5" in shown.text
    assert 5 < speech.made < 1000
    assert speech.at_once == 0


def test_who_waits_is_told_and_can_be_stopped() -> None:
    speech = Speech(words(3))
    waited_for, stop = player("a", speech), Event()
    with waited_for.turns.place():
        waiting = continued(waited_for, ASKED, stop)
        assert "a is busy: 1 before this one" in next(waiting).status
        stop.set()
        *_, last = waiting
    assert "Stopped before it began" in last.status
    assert speech.made == 0


def test_a_mistake_becomes_a_message_behind_what_was_made() -> None:
    def failing(asked: Asked) -> Iterator[Piece]:
        yield from words(2)
        raise UserError("the model's predictions are not numbers <b>")

    *_, last = continued(player("a", failing), ASKED, Event())
    assert last.status == ('<p class="problem" role="alert">The model\'s predictions are not numbers &lt;b&gt;.</p>')
    assert "word-1" in last.text


def test_memory_that_ran_out_is_said_and_a_fault_of_ours_is_raised() -> None:
    def failing(error: Exception) -> Iterator[Piece]:
        raise error
        yield

    *_, last = continued(player("a", lambda _: failing(MemoryError())), ASKED, Event())
    assert "Memory ran out" in last.status
    with pytest.raises(RuntimeError, match="a fault"):
        list(continued(player("a", lambda _: failing(RuntimeError("a fault"))), ASKED, Event()))
    with pytest.raises(ZeroDivisionError):
        list(continued(player("a", lambda _: failing(ZeroDivisionError())), ASKED, Event()))


def test_a_run_is_free_again_after_each_end() -> None:
    tried = player("a", Speech(words(100), seconds=0.001), waiting=0)
    abandoned = continued(tried, ASKED, Event())
    next(abandoned)
    abandoned.close()  # type: ignore[attr-defined]
    *_, last = continued(tried, ASKED, Event())
    assert "10 tokens" in last.status
