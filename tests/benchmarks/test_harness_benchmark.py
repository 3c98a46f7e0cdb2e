"""The benchmark of benchmarks runs in miniature, and finds the same answers."""

from pathlib import Path

import pytest


@pytest.mark.slow
def test_both_classes_answer_alike(
    test_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import harness

    words = ["harness.py", "--shape", "1x2x16x50257", "--items", "4", "--rounds", "1", "--batch", "3"]
    monkeypatch.setattr("sys.argv", words)
    harness.main()
    out = capsys.readouterr().out
    assert "same answers 4 of 4" in out
    assert "ratio to hf, batch 3:" in out
