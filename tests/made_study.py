"""A study small enough to be made many times."""

from pathlib import Path

SETTINGS = [
    "data.tokenizer=bytes", "data.window=16", "batch.tokens=64", "model.layers=1", "model.heads=2", "model.dim=16",
    "model.context=16", "model.vocab_size=257", "evaluation.tokens=512", "evaluation.every=never",
    "execution.threads=1",
]  # fmt: skip


def write_study(path: Path, **lines: str) -> Path:
    """Write the file of a study of two changes and two seeds, with other lines in place of some of its own."""
    content = {
        "base": '"gpt2-tiny"',
        "budget": '"640 tokens"',
        "seeds": "2",
        "settings": str(SETTINGS),
        "changes": "{ no-bias = ['model.bias=false'], wide = ['model.dim=32'] }",
    } | lines
    path.write_text("\n".join(f"{key} = {value}" for key, value in content.items() if value) + "\n")
    return path
