"""One at a time, in the order of coming."""

import threading

import pytest
from stand_ins import eventually

from daybreak.errors import UserError
from daybreak.playground.turns import Turns


def test_the_next_in_line_goes_when_the_one_before_has_left() -> None:
    turns = Turns(most_waiting=2)
    with turns.place() as first:
        assert first(0) == 0
        with turns.place() as second, turns.place() as third:
            assert (second(0), third(0)) == (1, 2)
        with turns.place() as fourth:
            assert fourth(0) == 1
    with turns.place() as fifth:
        assert fifth(0) == 0


def test_more_than_may_wait_are_sent_away() -> None:
    turns = Turns(most_waiting=1)
    with turns.place(), turns.place(), pytest.raises(UserError, match="1 wait for this run already"), turns.place():
        pass
    with turns.place() as before:
        assert before(0) == 0


def test_who_waits_is_woken() -> None:
    turns, found = Turns(most_waiting=1), []
    leave = threading.Event()

    def wait() -> None:
        with turns.place() as before:
            found.append(before(0))
            leave.set()
            found.append(before(60))

    with turns.place():
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert leave.wait(10)
    waiting.join(10)
    assert found == [1, 0]
    assert eventually(lambda: not waiting.is_alive())
