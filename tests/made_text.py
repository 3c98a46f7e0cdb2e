"""Text to train on, made up."""

import random
from pathlib import Path


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
