"""The texts: corpora for our own runs, and the same token ids for the peers.

A peer's folder holds `train.bin` and `val.bin`, raw uint16 ids as nanoGPT reads them, and `facts.json`.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from daybreak.data.prepare import prepare
from daybreak.data.shards import Corpus
from daybreak.files import whole_folder

TUNING_SHARE = 0.05


@dataclass(frozen=True)
class Text:
    """A corpus, the same tokens for the peers, and those that peers are tuned on."""

    corpus: Corpus
    scored: Path
    tuning: Path


def prepared(source: Path, folder: Path, *, tokenizer: str, validation: float) -> Text:
    """Prepare a text once; a later call finds it."""
    path = folder / "corpus"
    corpus = (
        Corpus.open(path) if path.exists() else prepare([str(source)], path, tokenizer=tokenizer, validation=validation)
    )
    text = Text(corpus, folder / "peers", folder / "tuning")
    training, validating = (corpus.stream(split) for split in ("train", "validation"))
    if not text.scored.exists():
        _write(text.scored, training.read(0, len(training)), validating.read(0, len(validating)), corpus)
    if not text.tuning.exists():
        boundary = int(len(training) * (1 - TUNING_SHARE))
        tail = training.read(boundary, min(len(training), boundary + 2 * len(validating)))
        _write(text.tuning, training.read(0, boundary), tail, corpus)
    return text


def _write(folder: Path, training: npt.NDArray[np.int64], validating: npt.NDArray[np.int64], corpus: Corpus) -> None:
    with whole_folder(folder) as partial:
        training.astype("<u2").tofile(partial / "train.bin")
        validating.astype("<u2").tofile(partial / "val.bin")
        facts = {
            "vocab_size": corpus.tokenizer.vocab_size,
            "bytes": int(corpus.tokenizer.token_bytes[validating[1:]].sum()),
        }
        (partial / "facts.json").write_text(json.dumps(facts))
