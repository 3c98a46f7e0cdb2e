"""One small run, trained once."""

import pytest

from daybreak import Recipe, Run, train
from daybreak.data.shards import Corpus

TINY = (
    "budget=20 steps", "data.window=16", "data.tokenizer=bytes", "batch.tokens=64", "model.layers=1",
    "model.heads=2", "model.dim=16", "model.context=16", "model.vocab_size=320", "schedule.warmup=4 steps",
    "optimizer.lr=1e-2", "evaluation.every=25%", "evaluation.tokens=256", "checkpoint.every=never",
    "execution.precision=fp32", "execution.threads=1", "execution.micro_batch=4", "execution.device=cpu",
)  # fmt: skip


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> Run:
    """20 steps of a tiny model on bytes. Nothing may be written into its folder."""
    recipe = Recipe.load("gpt2-tiny", *TINY)
    return train(recipe, data=corpus.path, out=tmp_path_factory.mktemp("runs") / "tiny")
