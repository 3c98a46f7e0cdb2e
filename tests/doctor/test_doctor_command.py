"""What the command makes of the findings."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daybreak import cli
from daybreak.doctor import examine
from daybreak.doctor.finding import Finding

GOOD = {"cpu": Finding("A processor, 2 cores.")}
LACKING = {"device": Finding(f"No GPU{', none at all' * 20}.", "years")}
BROKEN = {"disk": Finding("/x: nothing can be written there.", "a run cannot be saved there", broken=True)}

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command with findings made up: exit code, standard output, standard error."""

    def run(findings: dict[str, Finding], *words: str) -> tuple[int, str, str]:
        def examined(folder: Path, announce: Callable[[str], object]) -> Iterator[tuple[str, Finding]]:
            for name, finding in findings.items():
                announce(name)
                yield name, finding

        monkeypatch.setattr(examine, "examine", examined)
        monkeypatch.setattr(sys, "argv", ["daybreak", "doctor", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), *capsys.readouterr()

    return run


def test_findings_are_printed_aligned(doctor: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    code, out, err = doctor(GOOD | LACKING)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "good     cpu         A processor, 2 cores."
    assert lines[1].startswith("lacking  device      No GPU, none")
    assert lines[2].startswith(f"{'':21}none")
    assert lines[-3:] == [f"{'':21}Costs: years.", "", "Training works here. Lacking something: device."]
    assert max(map(len, lines)) <= 70


def test_exit_code_is_1_only_where_training_cannot_work(doctor: Command) -> None:
    code, out, _ = doctor(GOOD | LACKING | BROKEN)
    assert code == 1
    assert out.endswith("\nTraining cannot work here until this is mended: disk.\n")
    code, out, _ = doctor(GOOD)
    assert code == 0
    assert out.endswith("\nTraining works here, and nothing is lacking.\n")


@pytest.mark.parametrize("broken", [False, True])
def test_json_is_one_document(broken: bool, doctor: Command) -> None:
    code, out, err = doctor(GOOD | (BROKEN if broken else {}), "--json", "--folder", "runs")
    assert (code, err) == (int(broken), "")
    document = json.loads(out)
    assert (document["folder"], document["can_train"]) == ("runs", not broken)
    assert document["findings"][0] == {"name": "cpu", "state": "good", "found": "A processor, 2 cores.", "costs": ""}
    assert len(document["findings"]) == 1 + broken


def test_on_a_terminal_states_have_colours_and_checks_are_announced(
    doctor: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    _, out, err = doctor(GOOD)
    assert "\033[32m" in out
    assert err == "\r\033[Kchecking cpu ...\r\033[K"
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in doctor(GOOD)[1]
