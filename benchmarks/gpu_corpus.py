"""The corpus that is carried to a GPU: GPT-2 tokens in two bytes each, small enough to travel."""

import json
import random
import tempfile
from pathlib import Path

import daybreak.data.prepare
from daybreak.data.inputs import read_documents
from daybreak.data.inspection import describe

_TEXT_BYTES = 113_000_000  # about 25 M tokens
_LARGEST_FOLDER = 60_000_000
_VALIDATION = 0.04


def prepare(text: Path, out: Path) -> None:
    """Make a corpus of the first 113 MB of documents; says how large it became."""
    with tempfile.TemporaryDirectory() as folder:
        part, size = Path(folder) / "part.jsonl", 0
        with part.open("w", encoding="utf-8") as file:
            for document in read_documents([text]):
                content = "".join(document.pieces)
                size += len(content.encode())
                if size > _TEXT_BYTES:
                    break
                file.write(json.dumps({"text": content}) + "\n")
        corpus = daybreak.data.prepare.prepare([str(part)], out, tokenizer="gpt2", validation=_VALIDATION)
    print(describe(corpus))
    total = sum(file.stat().st_size for file in out.iterdir())
    print(f"{out}: {total / 1e6:.1f} MB to carry, {_LARGEST_FOLDER / 1e6:.0f} at most")


def prepare_toy(work: Path) -> Path:
    """A corpus of made-up text, whose bytes are its tokens; made once."""
    path = work / "toy-corpus"
    if not path.exists():
        generator = random.Random(0)
        words = ["day", "break", "light", "window", "token", "order", "the", "a", "of", "and", "is", "not"]
        work.mkdir(parents=True, exist_ok=True)
        text = work / "toy.txt"
        text.write_text(" ".join(generator.choice(words) for _ in range(3000)))
        daybreak.data.prepare.prepare([str(text)], path, tokenizer="bytes")
    return path
