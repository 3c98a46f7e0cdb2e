"""Ranks watch one another: each tells the others twice a second what it is doing.

A rank that falls silent, because it was killed, its machine is gone or it does not answer, ends the others; so does a
collective operation that fails. Both name the rank and the stage in which it was last heard of.
"""

import json
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import final

import torch.distributed as dist

from daybreak.errors import LostRankError, Stopped, UserError

_SECONDS_TO_MEET = 300.0
_SECONDS_TO_HEAR_A_LAST_WORD = 5.0
_SECONDS_TO_NOTICE = 10.0  # another rank's error by oneself, where communication does not break
_DONE, _STOPPED = "", "stopped"
_GO_ON = "The same command goes on from the last checkpoint"


@final
@dataclass(frozen=True)
class _Word:
    """What a rank says of itself.

    Attributes:
        ended: None while it works; else with which error, if with any.
    """

    beat: int
    stage: str
    ended: str | None
    host: str
    process: int


@final
class Watch:
    """Tells what this rank does and hears what the others do, in a thread; ends this process if one falls silent.

    Args:
        store: where ranks leave words for one another; a connection that nothing else uses.
        holds_store: this process holds it, so the others hear nothing once it is gone.
        timeout: seconds of silence after which a rank is lost.
    """

    def __init__(self, store: dist.Store, rank: int, count: int, *, holds_store: bool, timeout: float) -> None:
        self.stage = "starting"
        self._store, self._rank, self._holds_store, self._timeout = store, rank, holds_store, timeout
        self._others = [other for other in range(count) if other != rank]
        self._interval = min(0.5, timeout / 10)
        self._beat = 0
        self._ended: str | None = None
        self._words: dict[int, _Word] = {}
        self._changed: dict[int, float] = {}  # by this rank's clock, since others' clocks may differ
        self._threads = [
            threading.Thread(target=work, name="daybreak-watch", daemon=True) for work in (self._talk, self._check)
        ]
        self._wake, self._spoken, self._closed = threading.Event(), threading.Event(), threading.Event()

    def start(self) -> None:
        """Begin, once every rank has come."""
        self._speak()
        self._wait_for_all()
        self._listen()
        for thread in self._threads:
            thread.start()

    def end(self, error: BaseException | None) -> None:
        """Leave a last word: how this rank ended, which the others then know at once."""
        self._ended = _DONE if error is None else _STOPPED if isinstance(error, Stopped) else str(error) or repr(error)
        self._spoken.clear()
        self._wake.set()
        if self._threads[0].is_alive():
            self._spoken.wait(_SECONDS_TO_HEAR_A_LAST_WORD)
        if self._holds_store and error is not None:
            time.sleep(3 * self._interval)  # the others still have to hear it

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        self._wake.set()
        for thread in self._threads:  # one that wakes while Python shuts down would abort the process
            if thread.is_alive():
                thread.join(_SECONDS_TO_HEAR_A_LAST_WORD)

    def explain(self, failure: BaseException) -> BaseException:
        """What lies behind a failure between ranks: an error that names the one at fault, as soon as that is known."""
        deadline = time.monotonic() + _SECONDS_TO_HEAR_A_LAST_WORD
        while time.monotonic() < deadline:
            for rank, word in list(self._words.items()):
                if word.ended == _STOPPED:
                    return Stopped()
                if word.ended and word.host == socket.gethostname() and rank == 0:
                    return SystemExit(LostRankError.exit_code)  # it said so itself, to the same terminal
                if word.ended:
                    return LostRankError(f"rank {rank} ended with an error: {word.ended}")
                if self._silence(rank) > 5 * self._interval:
                    return LostRankError(f"{self._name(rank)} was lost. {_GO_ON}")
            time.sleep(self._interval / 4)
        others = " ".join(self._name(rank) for rank in self._words)
        return LostRankError(
            f"ranks do not meet: rank {self._rank} in stage {self.stage!r}, {others} all live: {failure}"
        )

    def said_once(self, error: BaseException) -> BaseException:
        """A rank's own mistake under its number, but silence where the first rank says the same."""
        if self._rank == 0 or not isinstance(error, UserError):
            return error
        deadline = time.monotonic() + _SECONDS_TO_HEAR_A_LAST_WORD
        while self._words[0].ended is None and time.monotonic() < deadline:
            time.sleep(self._interval / 4)
        if self._words[0].ended == str(error):
            return SystemExit(UserError.exit_code)
        return UserError(f"rank {self._rank}: {error}")

    def _wait_for_all(self) -> None:
        """In slices, between which a signal is heard.

        Raises:
            LostRankError: some rank has not come in time.
        """
        deadline = time.monotonic() + _SECONDS_TO_MEET
        while missing := [other for other in self._others if not self._store.check([f"word/{other}"])]:
            if time.monotonic() > deadline:
                shown = ", ".join(str(rank) for rank in missing)
                raise LostRankError(f"rank {shown} has not come within {_SECONDS_TO_MEET:.0f} s")
            time.sleep(0.1)

    def _talk(self) -> None:
        """Touches the store, which may block: so what is silent is judged in another thread."""
        with suppress(RuntimeError):  # the store is gone with the process that held it, which is noticed as silence
            while not self._closed.is_set():
                self._speak()
                self._listen()
                self._wake.wait(self._interval)
                self._wake.clear()

    def _check(self) -> None:
        while not self._closed.wait(self._interval):
            for rank, word in list(self._words.items()):
                if word.ended is None and self._silence(rank) > self._timeout:
                    self._give_up(f"{self._name(rank)} has not been heard of for {self._silence(rank):.0f} s")
                elif self._ended is None and self._failed(word) and self._silence(rank) > _SECONDS_TO_NOTICE:
                    self._give_up(f"{self._name(rank)} ended with an error: {word.ended}")

    def _speak(self) -> None:
        self._beat += 1
        ended = self._ended
        word = _Word(self._beat, self.stage, ended, socket.gethostname(), os.getpid())
        self._store.set(f"word/{self._rank}", json.dumps(vars(word)))
        if ended is not None:
            self._spoken.set()

    def _listen(self) -> None:
        texts = self._store.multi_get([f"word/{other}" for other in self._others])
        for other, text in zip(self._others, texts, strict=True):
            word = _Word(**json.loads(text))
            if self._words.get(other) != word:
                self._words[other], self._changed[other] = word, time.monotonic()

    @staticmethod
    def _failed(word: _Word) -> bool:
        return word.ended not in (None, _DONE, _STOPPED)

    def _silence(self, rank: int) -> float:
        return time.monotonic() - self._changed[rank]

    def _name(self, rank: int) -> str:
        word = self._words[rank]
        return f"rank {rank} (process {word.process} on {word.host}), in stage {word.stage!r},"

    def _give_up(self, why: str) -> None:
        """End this process from a thread: the main one waits for a rank that will not come."""
        print(f"error: {why}; rank {self._rank} ends. {_GO_ON}", file=sys.stderr, flush=True)
        os._exit(LostRankError.exit_code)
