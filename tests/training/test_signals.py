"""Asked to stop: once to save what is done, where there is nothing to save at once, and never twice in words."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from daybreak.errors import Stopped
from daybreak.training.signals import StopRequest, stop_on_signals

SIGNALS = [signal.SIGINT, signal.SIGTERM]


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)]


def wait_for(stop: StopRequest) -> None:
    deadline = time.monotonic() + 10
    while not stop.requested:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_the_first_signal_is_a_request_and_the_second_ends_at_once(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = handlers()
    with stop_on_signals() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        wait_for(stop)
        assert [signal.getsignal(each) for each in SIGNALS] == [signal.SIG_DFL, signal.SIG_DFL]
    assert handlers() == before
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(number.name)
    assert "once more ends at once" in said


def test_a_second_signal_does_end_the_process() -> None:
    script = """
import os, signal, time
from daybreak.training.signals import stop_on_signals
with stop_on_signals() as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    while not stop.requested:
        time.sleep(0.01)
    print("asked", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(30)
    print("still here", flush=True)
"""
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert made.stdout == "asked\n"
    assert made.returncode == -signal.SIGINT


def test_the_end_of_the_time_is_a_request(capsys: pytest.CaptureFixture[str]) -> None:
    before, began = handlers(), time.monotonic()
    with stop_on_signals(0.3) as stop:
        assert not stop.requested
        wait_for(stop)
    assert 0.3 <= time.monotonic() - began < 5
    assert "the time is over" in capsys.readouterr().err
    assert handlers() == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_time_that_is_over_already_is_a_request_at_once() -> None:
    with stop_on_signals(0.0) as stop:
        wait_for(stop)


def test_behind_its_block_no_time_ends_any_more() -> None:
    with stop_on_signals(0.2) as stop:
        pass
    time.sleep(0.4)
    assert not stop.requested


def test_where_there_is_nothing_to_save_a_request_ends_at_once() -> None:
    with stop_on_signals(0.1) as stop, pytest.raises(Stopped), stop.at_once():
        time.sleep(10)
    assert stop.requested


def test_a_request_from_before_ends_a_stage_with_nothing_to_save_before_it_begins() -> None:
    stop, begun = StopRequest(), []
    stop.request("Ctrl-C")
    with pytest.raises(Stopped), stop.at_once():
        begun.append(1)
    assert begun == []


def test_behind_such_a_stage_a_request_is_a_request_again() -> None:
    stop = StopRequest()
    with stop.at_once():
        pass
    stop.request("Ctrl-C")
    assert stop.requested
    raising = StopRequest()
    with pytest.raises(ZeroDivisionError), raising.at_once():
        raise ZeroDivisionError
    raising.request("Ctrl-C")


def test_a_request_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    stop = StopRequest()
    stop.request("the time is over")
    stop.request("SIGTERM")
    assert capsys.readouterr().err.count("stopping") == 1


def in_a_thread(work: list[object], after: float | None) -> None:
    before = handlers()
    try:
        with stop_on_signals(after) as stop:
            work.append(handlers() == before)
            if after is not None:
                wait_for(stop)
            work.append(stop.requested)
    except BaseException as error:
        work.append(error)


@pytest.mark.parametrize("after", [None, 0.2])
def test_outside_the_main_thread_signals_are_left_alone_and_the_time_still_ends(after: float | None) -> None:
    work: list[object] = []
    thread = threading.Thread(target=in_a_thread, args=(work, after))
    thread.start()
    thread.join(20)
    assert work == [True, after is not None]


def test_outside_the_main_thread_an_error_leaves_no_timer_behind() -> None:
    def fail() -> None:
        with pytest.raises(ZeroDivisionError), stop_on_signals(20.0):
            raise ZeroDivisionError

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join(20)
    for timer in [each for each in threading.enumerate() if isinstance(each, threading.Timer)]:
        timer.join(2)
        assert not timer.is_alive()
