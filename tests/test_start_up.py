"""What starting a run must not wait for."""

import subprocess
import sys

_SCRIPT = """
import sys, torch
from daybreak.recipe import Recipe
from daybreak.model.gpt import build
from daybreak.training.optimizer import build_optimizers
recipe = Recipe.load("gpt2-tiny")
model = build(recipe.model, 0, torch.device("cpu"))
tokens = torch.zeros(1, 8, dtype=torch.long)
model(tokens, tokens).backward()
for optimizer in build_optimizers(recipe.optimizer, model):
    optimizer.step()
print(*(name for name in ("torch._dynamo", "transformers", "pandas", "rich") if name in sys.modules))
"""


def test_a_first_step_is_made_without_the_compiler() -> None:
    """torch imports it lazily, at the first chance, and it takes as long as torch itself."""
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
