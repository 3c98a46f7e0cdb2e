"""Peers are scored as our own runs are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scoring import score

from contestants import nanogpt_train_seconds
from daybreak.evaluate.loss import Validation, row_starts
from daybreak.model.gpt import ModelConfig, build
from made_text import write_documents
from texts import prepared


def test_a_peer_s_score_is_that_of_our_own_evaluation(tmp_path: Path) -> None:
    text = prepared(write_documents(tmp_path), tmp_path / "made", tokenizer="bytes", validation=0.1)
    config = ModelConfig(layers=1, heads=2, dim=16, context=24, vocab_size=257)
    model = build(config, 1, torch.device("cpu"))
    stream = text.corpus.stream("validation")
    own = Validation(
        every=None,
        stream=stream,
        starts=row_starts(len(stream), 24),
        length=24,
        batch=7,
        token_bytes=text.corpus.tokenizer.token_bytes,
        device=torch.device("cpu"),
        precision="fp32",
    ).measure(model)
    assert own is not None
    assert (len(stream) - 1) % 24  # a short row is among them
    theirs = score(model.logits, text.scored, 24)
    assert theirs["loss"] == pytest.approx(own.loss, rel=1e-6)
    assert theirs["bits_per_byte"] == pytest.approx(own.bits_per_byte, rel=1e-6)


def test_peers_are_given_the_same_tokens_and_are_tuned_on_the_end_of_the_training_text(tmp_path: Path) -> None:
    text = prepared(write_documents(tmp_path), tmp_path / "made", tokenizer="bytes", validation=0.1)
    training, validating = (text.corpus.stream(split) for split in ("train", "validation"))

    def tokens(folder: Path, split: str) -> list[int]:
        return np.fromfile(folder / f"{split}.bin", dtype="<u2").tolist()

    assert tokens(text.scored, "train") == training.read(0, len(training)).tolist()
    assert tokens(text.scored, "val") == validating.read(0, len(validating)).tolist()
    assert tokens(text.tuning, "train") + tokens(text.tuning, "val") == tokens(text.scored, "train")
    assert len(tokens(text.tuning, "val")) == pytest.approx(0.05 * len(training), abs=1)


def test_evaluations_of_nanogpt_do_not_count_as_training() -> None:
    log = "step 0: train loss 4.2\niter 0: loss 4.2, time 900.00ms, mfu\niter 1: loss 4.1, time 20.00ms, mfu\n"
    log += "iter 2: loss 4.0, time 30.00ms, mfu\n"
    assert nanogpt_train_seconds(log) == pytest.approx(0.030 + 0.020 + 0.030)
