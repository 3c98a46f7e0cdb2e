"""Fixtures that all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from daybreak.data.prepare import prepare
from daybreak.data.shards import Corpus
from made_text import write_documents

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


@pytest.fixture(scope="module")
def offline_hub() -> Iterator[None]:
    """The Hugging Face hub out of reach, so that nothing waits for it."""
    import datasets
    import huggingface_hub

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        yield


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A small corpus of bytes: 257 ids, about 25,000 tokens."""
    folder = tmp_path_factory.mktemp("corpus")
    return prepare([str(write_documents(folder))], folder / "corpus", tokenizer="bytes")
