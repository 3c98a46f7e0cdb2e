"""A recipe made short enough to be looked at: the same model and micro-batches, a few steps, evaluations between."""

import random
import string
from pathlib import Path

from daybreak.data.prepare import prepare
from daybreak.data.shards import Corpus
from daybreak.errors import UserError
from daybreak.recipe import Recipe
from daybreak.training.execution import Execution

_MOST_PASSES = 4
_MOST_PASSES_OF_AN_EVALUATION = 8
_BYTE_TOKENIZER = 257
_LONGEST_TEXT = 20_000_000


def shortened(recipe: Recipe, execution: Execution, *, steps: int, evaluate_every: int) -> Recipe:
    """The recipe over a few steps of at most four micro-batches, with nothing saved or sampled before its end."""
    window = recipe.data.window
    most = max(1, _MOST_PASSES * execution.micro_batch * recipe.row_length // window) * window
    content = recipe.model_dump(mode="json")
    content |= {
        "budget": f"{steps} steps",
        "init": None,
        "early_stop": None,
        "curriculum": None,
        "schedule": {"kind": "cosine"},
        "batch": {"tokens": min(recipe.batch.tokens, most)},
        "guard": {},
    }
    passed = _MOST_PASSES_OF_AN_EVALUATION * execution.micro_batch * recipe.row_length
    content["evaluation"]["tokens"] = min(recipe.evaluation.tokens, passed)
    content["evaluation"]["every"] = f"{evaluate_every} steps"
    content["samples"]["every"] = None
    content["tasks"] = {}
    content["diagnostics"]["every"] = None
    content["checkpoint"] = {"every": None}
    content["execution"]["micro_batch"] = execution.micro_batch
    return Recipe.model_validate(content)


def random_corpus(recipe: Recipe, folder: Path) -> Corpus:
    """Random letters as a corpus of bytes, enough for two steps and for the recipe's evaluation.

    Raises:
        UserError: the model has fewer words than there are bytes.
    """
    if recipe.model.vocab_size < _BYTE_TOKENIZER:
        raise UserError(
            f"random text needs model.vocab_size = {_BYTE_TOKENIZER} or more, and {recipe.name} has "
            f"{recipe.model.vocab_size}; give a corpus with --data"
        )
    size = min(_LONGEST_TEXT, 2 * recipe.batch.tokens + 10 * recipe.evaluation.tokens + 2 * recipe.data.window)
    letters = random.Random(recipe.seed).choices(string.ascii_lowercase + " ", k=size)
    (folder / "text.txt").write_text("".join(letters))
    return prepare([str(folder / "text.txt")], folder / "corpus", tokenizer="bytes")
