"""Every notebook runs from its first cell to its last, at toy size, and shows what it promises."""

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

from daybreak import load

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelManager]:
    """One for all notebooks, so that torch is imported once; each begins with no names of another's."""
    manager = KernelManager(kernel_name="python3", transport="ipc")
    manager.start_kernel(env=os.environ | {"DAYBREAK_TOY": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})
    yield manager
    manager.shutdown_kernel(now=True)


def shown_by(name: str, kernel: KernelManager, folder: Path) -> tuple[str, int]:
    """Run a notebook in a folder: what it printed, and how many pictures it drew."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    start = nbformat.v4.new_code_cell(f"%reset -f\n%cd -q {folder}")
    notebook.cells.insert(0, start)
    NotebookClient(notebook, km=kernel, timeout=120).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    return printed, pictures


def test_quickstart_makes_a_run_that_learned_and_its_report(kernel: KernelManager, tmp_path: Path) -> None:
    printed, pictures = shown_by("quickstart", kernel, tmp_path)
    run = load(tmp_path / "quickstart" / "run")
    assert run.finished
    assert run.final_loss is not None
    assert run.final_loss < math.log(512) - 0.5
    assert "</html>" in (run.path / "report.html").read_text()
    assert "it is optimizer.lr here" in printed
    assert pictures == 1


def test_gpt2_from_scratch_agrees_part_by_part(kernel: KernelManager, tmp_path: Path) -> None:
    printed, pictures = shown_by("gpt2-from-scratch", kernel, tmp_path)
    parts = re.findall(r"^(.+): equal, \(", printed, flags=re.MULTILINE)
    assert parts == [
        *("embedding", "embedding and position", "norm", "one head", "attention", "MLP", "block", "logits", "loss"),
        *("GPT", "GPT2LMHeadModel"),
    ]
    assert "Daybreak agrees, with a cache" in printed
    assert "transformers agrees" in printed
    assert "124,439,808" in printed
    assert "124,475,904" in printed
    assert pictures == 4


def test_optimisations_are_timed_or_said_not_to_apply(kernel: KernelManager, tmp_path: Path) -> None:
    printed, pictures = shown_by("optimisations", kernel, tmp_path)
    table = printed[printed.rindex("tokens/s") :]
    rows = re.findall(r"^(\S.*?) {2,}[\d,.]+ +([\d,]+) +([\d.]+)x", table, flags=re.MULTILINE)
    rates = [float(rate.replace(",", "")) for _, rate, _ in rows]
    for (name, _, times), rate in zip(rows, rates, strict=True):
        assert float(times) == pytest.approx(rate / rates[0], abs=0.02), name
    names = [name for name, _, _ in rows]
    for name in ("plain fp32", "TF32", "fp16 autocast", "bf16 autocast", "torch.compile", "fused attention"):
        assert name in names or re.search(rf"^{re.escape(name)}: not ", printed, flags=re.MULTILINE), name
    assert names[-4:] == ["vocabulary 50,304", "fused AdamW", "loss in chunks", "accumulated over 2"]
    assert pictures == 1


def test_notebooks_are_kept_without_outputs() -> None:
    assert NAMES == ["gpt2-from-scratch", "optimisations", "quickstart"]
    for name in NAMES:
        notebook = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            assert not cell.get("outputs"), name
            assert cell.get("execution_count") is None, name
