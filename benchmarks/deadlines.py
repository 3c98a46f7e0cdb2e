"""Whether a budget in time is kept, by the clock on the wall: from the start of the process to its end.

python benchmarks/deadlines.py --corpus data/wikipedia                  # all cases: an hour and a half
python benchmarks/deadlines.py --corpus data/wikipedia --only 60s slowed
python benchmarks/deadlines.py --report

`slowed` halves the machine from the middle on: the run is held still for every second twentieth of a second. `stopped`
is stopped after a third of its budget and gone on with an hour later, which does not count.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import daybreak
from journal import Journal

RESULTS = Path(__file__).parent / "results" / "deadlines.jsonl"
CASES = {"60s": 60, "3m": 180, "10m": 600, "slowed": 180, "stopped": 180}
_HELD = 0.05  # seconds, in turn with as many in which it runs
_STOPPED = 3  # exit code
_SLACK_SECONDS, _SLACK_SHARE = 3.0, 0.01


def perform(case: str, corpus: Path, out: Path, pause: float) -> dict[str, Any]:
    """Train for a case's budget; seconds are of the process or processes, without the pause between them."""
    budget = CASES[case]
    words = ["train", "daybreak-small", f"budget={budget}s", "--data", str(corpus), "--out", str(out)]
    if case == "stopped":
        took = _run([*words, "--stop-after", f"{budget // 3}s"], expected=_STOPPED)
        time.sleep(pause)
        took += _run(words)
    else:
        took = _run(words, slow_from=budget / 2 if case == "slowed" else None)
    run = daybreak.load(out)
    last = run.metrics()[-1]
    return {
        "case": case,
        "budget": budget,
        "seconds": round(took, 2),
        "steps": run.spent.steps,
        "progress": round(last["progress"] + last["progress_share"], 5),
        "lr_share": round(last["lr"] / run.recipe.optimizer.lr, 5),
        "loss": run.final_loss,
        "pause": pause if case == "stopped" else 0,
    }


def _run(words: list[str], *, expected: int = 0, slow_from: float | None = None) -> float:
    """Seconds that the command took.

    Args:
        slow_from: seconds from which it is held still half of the time.
    """
    began = time.monotonic()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen([sys.executable, "-m", "daybreak", *words], stdout=said, stderr=said)
        while slow_from is not None and child.poll() is None:
            if time.monotonic() - began < slow_from:
                time.sleep(_HELD)
                continue
            os.kill(child.pid, signal.SIGSTOP)
            time.sleep(_HELD)
            os.kill(child.pid, signal.SIGCONT)
            time.sleep(_HELD)
        code = child.wait()
        if code != expected:
            said.seek(0)
            raise SystemExit(f"exit code {code}: {said.read().decode()[-2000:]}")
    return time.monotonic() - began


def report() -> None:
    records = Journal(RESULTS).records("deadlines")
    print("| case | budget | by the wall | off by | allowed | steps | last lr, of the peak | |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    for each in records:
        off = each["seconds"] - each["budget"]
        allowed = max(_SLACK_SECONDS, _SLACK_SHARE * each["budget"])
        verdict = "kept" if abs(off) <= allowed else "MISSED"
        print(
            f"| {each['case']} | {each['budget']} s | {each['seconds']:.1f} s | {off:+.1f} s | {allowed:.1f} s "
            f"| {each['steps']:,} | {each['lr_share']:.2%} | {verdict} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="for daybreak-small, prepared with --tokenizer bpe:4096")
    parser.add_argument("--only", nargs="+", choices=tuple(CASES), default=tuple(CASES))
    parser.add_argument("--pause", type=float, default=3600, help="seconds between the sittings of the stopped run")
    parser.add_argument("--report", action="store_true", help="print what was measured")
    asked = parser.parse_args()
    if asked.report:
        report()
        return
    if asked.corpus is None:
        parser.error("--corpus is missing")
    for case in asked.only:
        with tempfile.TemporaryDirectory(prefix="daybreak-deadlines-") as folder:
            record = perform(case, asked.corpus, Path(folder) / case, asked.pause)
        record = Journal(RESULTS).add("deadlines", **record)
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
