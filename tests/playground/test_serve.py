"""The page's server, spoken to directly: whoever calls it gets no more than the page states."""

import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from stand_ins import SAID, Speech, eventually, player, served, words

from daybreak.errors import UserError
from daybreak.playground.asked import Limits
from daybreak.playground.serve import listen
from daybreak.playground.settings import SETTINGS
from daybreak.sampling.text import Piece

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio")

LIMITS = Limits(characters=50, tokens=400, waiting=1)
QUICK, SLOW, RUDE = (
    Speech(words(400)),
    Speech(words(400), seconds=0.01),
    Speech([Piece(text, 0, -1.0) for text in SAID]),
)


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[list[str]]:
    """Hosts but this one that were looked up or called, by anything in this process."""
    called: list[str] = []
    really_connect, really_look_up = socket.socket.connect, socket.getaddrinfo

    def note(host: object) -> None:
        if str(host) not in ("127.0.0.1", "localhost", "::1", "None"):
            called.append(str(host))

    def connect(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple):
            note(address[0])
        really_connect(self, address)

    def look_up(host: Any, *arguments: Any, **named: Any) -> Any:
        note(host)
        return really_look_up(host, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        patch.setattr(socket, "getaddrinfo", look_up)
        for name in ("GRADIO_SERVER_NAME", "GRADIO_SHARE", "GRADIO_ANALYTICS_ENABLED"):
            patch.setenv(name, "0.0.0.0" if name.endswith("NAME") else "True")
        yield called


@pytest.fixture(scope="module")
def address(elsewhere: list[str]) -> Iterator[str]:
    players = [player("quick", QUICK), player("slow", SLOW, waiting=1), player("rude", RUDE)]
    with served(players, LIMITS) as address:
        yield address


def fields(run: str, **given: Any) -> list[Any]:
    found = {"run": run, "prompt": "Once", "tokens": 5, "greedy": False, "seed": 0, "stop": ""}
    found |= {setting.name: setting.start for setting in SETTINGS} | given
    return list(found.values())


def join(address: str, visitor: str, values: list[Any]) -> None:
    """Ask for a continuation, as the page's own script does."""
    configuration = httpx.get(f"{address}/config").json()
    function = next(each["id"] for each in configuration["dependencies"] if each["api_name"] == "continue")
    body = {"data": values, "fn_index": function, "session_hash": visitor}
    httpx.post(f"{address}/gradio_api/queue/join", json=body).raise_for_status()


@contextmanager
def messages(address: str, visitor: str) -> Iterator[Iterator[dict[str, Any]]]:
    """What the server sends until everything this visitor asked for is done."""
    parameters = {"session_hash": visitor}
    with httpx.stream("GET", f"{address}/gradio_api/queue/data", params=parameters, timeout=30) as events:
        yield (json.loads(line.removeprefix("data:")) for line in events.iter_lines() if line.startswith("data:"))


def ask(address: str, run: str, **given: Any) -> tuple[str, str]:
    """Text and status in the end."""
    visitor = uuid4().hex
    join(address, visitor, fields(run, **given))
    with messages(address, visitor) as sent:
        last = next(each for each in sent if each["msg"] == "process_completed")
    assert last["success"], last
    text, status = last["output"]["data"]
    return text, status


def test_the_settings_reach_the_run(address: str) -> None:
    text, status = ask(address, "quick", stop="The end", seed=7, temperature=0.5)
    assert "word-4" in text
    assert "5 tokens" in status
    last = QUICK.asked[-1]
    assert (last.prompt, last.tokens, last.stop) == ("Once", 5, ("The end",))
    assert (last.sampling.seed, last.sampling.temperature) == (7, 0.5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prompt": "x" * 51}, "51 characters"),
        ({"tokens": 401}, "401 tokens"),
        ({"tokens": 10**30}, "tokens were asked for"),
        ({"run": "other"}, "no run other"),
        ({"stop": "a\n" * 9}, "9 stop strings"),
        ({"temperature": -1}, "Temperature = -1"),
        ({"seed": "<b>"}, "&lt;b&gt;"),
    ],
)
def test_more_than_the_page_states_is_refused_before_anything_is_computed(
    address: str, given: dict[str, Any], said: str
) -> None:
    before = len(QUICK.asked)
    text, status = ask(address, **{"run": "quick", **given})
    assert text == ""
    assert said in status
    assert 'role="alert"' in status
    assert len(QUICK.asked) == before


def test_a_run_makes_one_at_a_time_and_sends_away_who_is_too_many(address: str) -> None:
    before = len(SLOW.asked)
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda _: ask(address, "slow", tokens=40)[1], range(4)))
    assert SLOW.most_at_once == 1
    served_, refused = (sum(said in each for each in found) for said in ("40 tokens", "1 wait for this run already"))
    assert (served_, refused) == (2, 2)
    assert len(SLOW.asked) == before + 2


def test_who_goes_away_stops_the_computation(address: str) -> None:
    before = SLOW.made
    join(address, "leaves", fields("slow", tokens=400))
    with messages(address, "leaves") as sent:
        assert any(each["msg"] == "process_generating" for each in sent)
    assert eventually(lambda: SLOW.at_once == 0)
    assert before < SLOW.made < before + 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:{port}", "Origin": "http://localhost:{port}"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "192.168.0.7:{port}"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_only_this_machine_under_its_own_name_is_served(address: str, headers: dict[str, str], status: int) -> None:
    port = address.rpartition(":")[2]
    sent = {name: value.format(port=port) for name, value in headers.items()}
    assert httpx.get(address, headers=sent).status_code == status


def test_it_listens_on_this_machine_alone(address: str) -> None:
    port = int(address.rpartition(":")[2])
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [local for _, local, _, state, *_ in sockets if state == "0A"]
    assert [each for each in listening if each.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


def test_the_page_names_nothing_that_a_browser_would_fetch_from_elsewhere(address: str, elsewhere: list[str]) -> None:
    page = httpx.get(address)
    fetched = re.findall(r"""(?:src|href)=["'](?:https?:)?//([^/"']+)""", page.text)
    assert fetched == []
    assert "default-src 'self'" in page.headers["content-security-policy"]
    theme = httpx.get(f"{address}/theme.css").text
    assert "http" not in theme.replace("http://www.w3.org", "")
    assert elsewhere == []


def test_a_port_that_is_taken_is_said() -> None:
    with listen(None) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} cannot be used"):
            listen(port)
        with listen(None) as another:
            assert another.getsockname()[1] != port
