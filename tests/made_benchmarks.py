"""Small benchmarks: the harness's own tasks on made-up items, and task files that nobody has seen."""

import json
import lzma
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

WORDS = ("sun", "dawn", "light", "river", "stone", "bird", "cloud", "tree", "hill", "night", "wind", "road", "song")

KINDS = {
    "choices": """
output_type: multiple_choice
doc_to_text: "Q: {{ask}}\\nA:"
doc_to_choice: options
doc_to_target: right
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "cloze": """
output_type: loglikelihood
doc_to_text: before
doc_to_target: " {{after}}"
metric_list: [{metric: perplexity}, {metric: acc}]
""",
    "pairs": """
output_type: multiple_choice
doc_to_text: ""
doc_to_target: 0
doc_to_choice: "{{[good, bad]}}"
metric_list: [{metric: acc}]
""",
    "texts": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
""",
    "answers": """
output_type: generate_until
doc_to_text: ask
doc_to_target: answer
generation_kwargs: {until: ["\\n"], max_gen_toks: 6}
metric_list: [{metric: exact_match}]
""",
}


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(lzma.compress(content) if path.suffix == ".xz" else content)
    return path


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words))


def lambada(folder: Path) -> Path:
    rng = random.Random(0)
    return write_lines(folder / "lambada.jsonl", ({"text": sentence(rng, rng.randint(5, 12))} for _ in range(12)))


def arc(folder: Path, name: str = "arc.jsonl", seed: int = 1) -> Path:
    rng = random.Random(seed)
    rows = []
    for number in range(12):
        labels = "ABCD" if number % 3 else "1234"
        text = [sentence(rng, rng.randint(1, 4)) for _ in labels]
        choices = {"text": text, "label": list(labels)}
        rows.append(
            {"id": str(number), "question": sentence(rng, 8), "choices": choices, "answerKey": rng.choice(labels)}
        )
    return write_lines(folder / name, rows)


def blimp(folder: Path) -> Path:
    """Two of the 67 paradigms, packed."""
    rng = random.Random(2)
    rows = [
        {"sentence_good": sentence(rng, 5), "sentence_bad": sentence(rng, 5), "UID": paradigm}
        for paradigm in ("adjunct_island", "causative")
        for _ in range(8)
    ]
    return write_lines(folder / "blimp.jsonl.xz", rows)


def task_folder(folder: Path) -> Path:
    """Multiple choice, cloze, minimal pairs, perplexity and generation, as a person would write them."""
    rng = random.Random(3)
    folder.mkdir()
    choices = [{"ask": sentence(rng, 6), "options": [sentence(rng, 2) for _ in range(3)], "right": 1} for _ in range(6)]
    write_lines(folder / "choices.jsonl", choices)
    write_lines(folder / "cloze.jsonl", ({"before": sentence(rng, 6), "after": sentence(rng, 1)} for _ in range(6)))
    write_lines(folder / "pairs.jsonl", ({"good": sentence(rng, 4), "bad": sentence(rng, 4)} for _ in range(6)))
    write_lines(folder / "texts.jsonl", ({"text": sentence(rng, length)} for length in (5, 30, 70)))
    write_lines(folder / "answers.jsonl", ({"ask": sentence(rng, 4), "answer": sentence(rng, 1)} for _ in range(3)))
    for file, kind in KINDS.items():
        head = f"task: made_{file}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {file}.jsonl}}}}\n"
        (folder / f"{file}.yaml").write_text(f"{head}test_split: test\n{kind}\nmetadata: {{version: 2.5}}\n")
    return folder
