"""The watch: a silent rank ends the others, last words are heard, and one mistake is said by one rank."""

import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
import torch.distributed as dist
from rank_processes import wait_for

import daybreak.watch
from daybreak.errors import LostRankError, Stopped, UserError
from daybreak.watch import Watch

TIMEOUT = 2.0
Three = tuple[Watch, Watch, Watch]
FAILURE = RuntimeError("gloo: connection closed by peer")


class Exits:
    """Stands for `os._exit`: notes the codes, and does not return before the test is over."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.over = threading.Event()

    def __call__(self, code: int) -> None:
        self.codes.append(code)
        self.over.wait()


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Exits:
    """The ends of this process that a watch asked for."""
    exits = Exits()
    monkeypatch.setattr(os, "_exit", exits)
    return exits


def begin_all(watches: Sequence[Watch]) -> None:
    """Each waits for the others to begin."""
    threads = [threading.Thread(target=watch.start) for watch in watches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture
def watches(exits: Exits) -> Iterator[Three]:
    """Those of three ranks, begun."""
    store = dist.HashStore()
    first, second, third = (Watch(store, rank, 3, holds_store=False, timeout=TIMEOUT) for rank in range(3))
    three = (first, second, third)
    for rank, watch in enumerate(three):
        watch.stage = f"step {10 + rank}"
    begin_all(three)
    yield three
    exits.over.set()
    for watch in three:
        watch.close()


def test_a_rank_that_falls_silent_ends_the_others_which_name_it(
    watches: Three, exits: Exits, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    watches[2].close()
    wait_for(lambda: len(exits.codes) == 2, "the end of both others")
    assert time.monotonic() - began > TIMEOUT - 0.5
    assert exits.codes == [4, 4]
    lines = capsys.readouterr().err.splitlines()
    for rank in (0, 1):
        (line,) = [line for line in lines if f"; rank {rank} ends. " in line]
        assert line.startswith(f"error: rank 2 (process {os.getpid()} on {socket.gethostname()})")
        assert "in stage 'step 12', has not been heard of" in line


def test_a_rank_that_is_done_is_not_missed(watches: Three, exits: Exits) -> None:
    watches[2].end(None)
    watches[2].close()
    time.sleep(1.5 * TIMEOUT)
    assert not exits.codes


class SlowStore(dist.Store):
    """A store behind a slow network."""

    def __init__(self) -> None:
        super().__init__()
        self._store = dist.HashStore()

    def set(self, key: str, value: str) -> None:
        self._store.set(key, value)

    def multi_get(self, keys: list[str]) -> list[bytes]:
        time.sleep(0.3)
        return self._store.multi_get(keys)

    def check(self, keys: list[str]) -> bool:
        return bool(self._store.check(keys))


def test_a_watch_that_is_closed_leaves_no_thread_that_could_meet_the_end_of_the_process() -> None:
    """A thread that comes back from the store while Python shuts down takes the whole process with it (SIGABRT)."""
    before = set(threading.enumerate())
    store = SlowStore()
    both = [Watch(store, rank, 2, holds_store=False, timeout=TIMEOUT) for rank in range(2)]
    begin_all(both)
    for watch in both:
        watch.end(None)
        watch.close()
    assert not set(threading.enumerate()) - before


def test_a_failure_is_explained_by_the_rank_that_is_silent(watches: Three) -> None:
    watches[1].close()
    explained = watches[0].explain(FAILURE)
    assert isinstance(explained, LostRankError)
    assert f"rank 1 (process {os.getpid()}" in str(explained)
    assert "in stage 'step 11', was lost" in str(explained)


def test_a_failure_is_explained_by_the_last_words_of_the_rank_that_made_a_mistake(
    watches: Three,
) -> None:
    watches[1].end(UserError("data/day does not exist"))
    for watch in (watches[0], watches[2]):
        explained = watch.explain(FAILURE)
        assert isinstance(explained, LostRankError)
        assert str(explained) == "rank 1 ended with an error: data/day does not exist"


def test_what_the_first_rank_said_is_not_repeated_on_its_machine(
    watches: Three, monkeypatch: pytest.MonkeyPatch
) -> None:
    watches[0].end(UserError("the batch does not divide"))
    explained = watches[1].explain(FAILURE)
    assert isinstance(explained, SystemExit)
    assert explained.code == 4
    watches[0].close()
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert str(watches[2].explain(FAILURE)) == "rank 0 ended with an error: the batch does not divide"


def test_a_rank_that_was_stopped_stops_the_others(watches: Three) -> None:
    watches[2].end(Stopped())
    assert isinstance(watches[0].explain(FAILURE), Stopped)


def test_where_no_rank_is_at_fault_all_are_named_with_their_stages(
    watches: Three, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daybreak.watch, "_SECONDS_TO_HEAR_A_LAST_WORD", 0.3)
    explained = watches[0].explain(FAILURE)
    assert isinstance(explained, LostRankError)
    for rank in range(3):
        assert f"rank {rank}" in str(explained)
        assert f"'step {10 + rank}'" in str(explained)
    assert str(FAILURE) in str(explained)


def test_a_stage_is_heard_of_while_it_lasts(watches: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    watches[1].stage = "saving step 11"
    monkeypatch.setattr(daybreak.watch, "_SECONDS_TO_HEAR_A_LAST_WORD", 0.0)
    wait_for(lambda: "'saving step 11'" in str(watches[0].explain(FAILURE)), "the new stage")


def test_a_mistake_of_all_ranks_is_said_by_the_first_alone(watches: Three) -> None:
    mistake = UserError("model.dim = 7 is odd")
    for watch in watches:
        watch.end(mistake)
    assert watches[0].said_once(mistake) is mistake
    for watch in watches[1:]:
        silent = watch.said_once(mistake)
        assert isinstance(silent, SystemExit)
        assert silent.code == 2


def test_a_rank_says_its_own_mistake_under_its_number(watches: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake = UserError("data/day does not exist")
    monkeypatch.setattr(daybreak.watch, "_SECONDS_TO_HEAR_A_LAST_WORD", 0.3)
    said = watches[1].said_once(mistake)  # the first rank goes on
    assert isinstance(said, UserError)
    assert str(said) == "rank 1: data/day does not exist"
    watches[0].end(LostRankError("rank 1 ended with an error: data/day does not exist"))
    assert str(watches[1].said_once(mistake)) == "rank 1: data/day does not exist"


def test_what_is_no_mistake_of_a_person_is_left_as_it_is(watches: Three) -> None:
    for error in (LostRankError("rank 0 was lost"), Stopped(), ValueError("a fault of our own")):
        assert watches[1].said_once(error) is error
