"""The whole path on data whose entropy is known."""

from pathlib import Path

import numpy as np
import pytest

from daybreak import Recipe, prepare, train
from daybreak.data import corpora


@pytest.mark.slow
def test_zero_one_tiny_reaches_the_entropy_of_its_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpora, "_ZERO_ONE_DOCUMENTS", 2000)
    corpus = prepare(["zero-one"], tmp_path / "corpus", tokenizer="bpe:259")
    run = train(Recipe.load("zero-one-tiny", "budget=250 steps"), data=corpus.path, out=tmp_path / "run")

    stream = corpus.stream("validation")
    tokens = stream.read(1, len(stream))
    # A document's first word has no blank in front, but is the same symbol.
    text = [corpus.tokenizer.decode([token]).strip() for token in range(corpus.tokenizer.vocab_size)]
    symbols = np.unique([text[token] for token in tokens], return_counts=True)[1]
    shares = symbols / symbols.sum()
    entropy = -(shares * np.log(shares)).sum()
    assert len(symbols) == 3  # 0, 1 and end-of-text
    assert entropy == pytest.approx(0.6438, abs=0.005)
    assert run.evaluate().loss == pytest.approx(entropy, abs=0.02)
