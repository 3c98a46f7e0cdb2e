"""daybreak play: from the command line to a page, and its end."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from daybreak import Recipe, Run, train
from daybreak.cli import main
from daybreak.data.shards import Corpus
from daybreak.playground.serve import listen

TINY = (
    "budget=4 steps", "data.window=16", "data.tokenizer=bytes", "batch.tokens=64", "model.layers=1", "model.heads=2",
    "model.dim=16", "model.context=16", "model.vocab_size=257", "evaluation.tokens=100", "execution.device=cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(Recipe.load("gpt2-tiny", *TINY), data=corpus.path, out=tmp_path_factory.mktemp("runs") / "run")


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What is said on standard error by a command that ends with code 2."""
    monkeypatch.setattr(sys, "argv", ["daybreak", "play", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_another_host_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], finished: Run
) -> None:
    said = refused(monkeypatch, capsys, str(finished.path), "--host", "0.0.0.0")
    assert "served to this machine only" in said
    assert "ssh -L" in said


def test_without_gradio_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], finished: Run
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "pip install 'daybreak[play]'" in refused(monkeypatch, capsys, str(finished.path))


def test_what_is_no_run_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "is not a run" in refused(monkeypatch, capsys, str(tmp_path))


def test_a_run_given_twice_and_a_port_that_is_taken_are_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], finished: Run
) -> None:
    assert "is given twice" in refused(monkeypatch, capsys, str(finished.path), str(finished.path))
    with listen(None) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port} cannot be used" in refused(monkeypatch, capsys, str(finished.path), "--port", port)


@pytest.mark.slow
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_it_serves_until_it_is_interrupted(finished: Run, busy: bool) -> None:
    command = [sys.executable, "-m", "daybreak", "play", str(finished.path), "--most-tokens", "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        address = re.match(r"http://127\.0\.0\.1:\d+", said)
        assert address is not None, said
        page = httpx.get(address[0], timeout=30)
        assert finished.path.name in page.text
        if busy:
            configuration = httpx.get(f"{address[0]}/config").json()
            function = next(each for each in configuration["dependencies"] if each["api_name"] == "continue")
            defaults = {each["id"]: each["props"].get("value") for each in configuration["components"]}
            data = [defaults[each] for each in function["inputs"]]
            data[1:3] = ["Once", 100_000]
            body = {"data": data, "fn_index": function["id"], "session_hash": "busy"}
            httpx.post(f"{address[0]}/gradio_api/queue/join", json=body).raise_for_status()
            events = f"{address[0]}/gradio_api/queue/data"
            with httpx.stream("GET", events, params={"session_hash": "busy"}, timeout=30) as sent:
                assert any("process_generating" in line for line in sent.iter_lines())
                os.kill(process.pid, signal.SIGINT)
                process.wait(20)
        else:
            os.kill(process.pid, signal.SIGINT)
            process.wait(20)
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.returncode == 130
