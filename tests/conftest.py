"""Fixtures that all tests share."""

import os
import random
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from daybreak.data.prepare import prepare
from daybreak.data.shards import Corpus

settings.register_profile("daybreak", deadline=None, derandomize=True)
settings.load_profile("daybreak")
torch.set_num_threads(1)  # the suite runs in two processes on two cores


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data that `DAYBREAK_TEST_DATA` names; skips without it."""
    folder = os.environ.get("DAYBREAK_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("DAYBREAK_TEST_DATA names no folder with real data")
    return Path(folder)


def write_documents(folder: Path, *, documents: int = 40, words: int = 120, seed: int = 0) -> Path:
    """A JSONL file of made-up text with some structure to learn."""
    generator = random.Random(seed)
    vocabulary = ["day", "break", "light", "window", "token", "order", "the", "a", "of", "and", "is", "not"]
    lines = []
    for _ in range(documents):
        text = " ".join(generator.choice(vocabulary) for _ in range(words))
        lines.append('{"text": "' + text + '."}')
    path = folder / "documents.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A small corpus of bytes: 257 ids, about 25,000 tokens."""
    folder = tmp_path_factory.mktemp("corpus")
    return prepare([str(write_documents(folder))], folder / "corpus", tokenizer="bytes")
