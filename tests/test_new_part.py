"""docs/parts.md: its change of one file, made in a copy of the source, gives an MLP that can be trained by its name."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daybreak.data.shards import Corpus
from markdown_blocks import blocks_of

ROOT = Path(__file__).parents[1]
# What the page says that forward must return, on the weights of the part itself.
CHECK = """
import torch
from daybreak.model.mlp import MLP, MaxoutMLPConfig

mlp = MLP(MaxoutMLPConfig(kind="maxout", hidden=24), dim=16, bias=False, dropout=0.0)
mlp.initialise(0, "mlp", 0.5, 0.5)
x = torch.randn(3, 7, 16)
first, second = x @ mlp.up.weight[:24].T, x @ mlp.up.weight[24:].T
expected = torch.where(first > second, first, second) @ mlp.down.weight.T
torch.testing.assert_close(mlp(x), expected)
"""


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source with the page's change."""
    folder = tmp_path_factory.mktemp("changed")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (change,) = (block.content for block in blocks_of(ROOT / "docs" / "parts.md") if block.language == "diff")
    made = subprocess.run(["git", "apply", "-v"], cwd=folder, input=change, text=True, capture_output=True, check=False)
    assert made.returncode == 0, f"docs/parts.md does not fit model/mlp.py any more: {made.stderr}"
    assert change.count("\n+++ ") == 1  # no file but one
    added = [line for line in change.splitlines() if line.startswith("+") and not line.startswith("+++")]
    assert f"in {len(added)} lines" in (ROOT / "docs" / "parts.md").read_text()
    return folder


def run(folder: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_new_part_computes_what_its_paper_says(changed: Path) -> None:
    run(changed, "-c", CHECK)


def test_the_new_part_trains(changed: Path, corpus: Corpus) -> None:
    small = ["budget=2steps", "batch.tokens=512", "model.layers=1", "data.window=64", "evaluation.tokens=500"]
    settings = [*small, f"model.vocab_size={corpus.tokenizer.padded_vocab_size}", "data.tokenizer=bytes"]
    words = ["-m", "daybreak", "train", "gpt2-tiny", "--data", str(corpus.path), "--out", "run", *settings]
    said = run(changed, *words, "model.mlp={kind='maxout', hidden=32}")
    assert "2 steps" in said
    assert 'kind = "maxout"' in (changed / "run" / "recipe.toml").read_text()
