"""Both benchmarks from end to end, in sizes of seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), "--toy", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.mark.slow
def test_the_cpu_benchmark_runs_and_goes_on_where_it_was(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    run("cpu.py", "--work", str(tmp_path))
    (file,) = tmp_path.rglob("cpu.jsonl")
    lines = file.read_text().splitlines()
    rows = {json.loads(line)["row"] for line in lines}
    assert rows >= {"throughput", "start-up", "waiting", "calibration", "tuning", "race", "compression"}
    (page,) = tmp_path.rglob("*-cpu.md")
    assert "| transformers tuned | 8steps |" in page.read_text()

    lost = [line for line in lines if json.loads(line)["row"] != "throughput"]
    file.write_text("".join(line + "\n" for line in lost))
    run("cpu.py", "--work", str(tmp_path))
    assert len(file.read_text().splitlines()) == len(lines)


@pytest.mark.slow
def test_the_gpu_benchmark_runs_all_steps(tmp_path: Path) -> None:
    run("gpu.py", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"), "--minutes", "20")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {step for step, found in results.items() if "failed" in found} == set()
    assert set(results) == {"machine", "tests", "plain", "cold", "target", "ours", "stock"}
    assert "was reached" in (page := (tmp_path / "out" / "results.md").read_text()) or "was not reached" in page
