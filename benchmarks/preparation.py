"""How fast text becomes a corpus, and beside what: tiktoken alone on the same cores, and datatrove for the same steps.

python benchmarks/preparation.py tokens  wikipedia.jsonl novels.jsonl …       # tokenising against tiktoken, by turns
python benchmarks/preparation.py whole   wikipedia.jsonl novels.jsonl …       # cleaning, near-deduplication, tokens
python benchmarks/preparation.py stages  wikipedia.jsonl --megabytes 20       # each stage, one worker
python benchmarks/preparation.py datatrove wikipedia.jsonl --megabytes 20 --python OTHER/bin/python
python benchmarks/preparation.py report

datatrove (Hugging Face) is installed into an environment of its own: pip install "datatrove[io,processing]".
"""

import argparse
import json
import multiprocessing
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from daybreak.data import encoding, pipeline
from daybreak.data.blocks import Block, read_block, write_blocks
from daybreak.data.clean import Cleaning
from daybreak.data.documents import PLAIN, Tally
from daybreak.data.inputs import file_input, find_files, read_documents
from daybreak.data.prepare import prepare
from daybreak.data.tokenizer import gpt2_tokenizer
from daybreak.executor import Workers
from daybreak.files import write_json
from journal import Journal

RESULTS = Path(__file__).parent / "results" / "preparation.jsonl"
WORKERS = 2
_TURNS = 3


def texts_of(files: list[Path], megabytes: float | None) -> Iterator[str]:
    """The documents of files, one after the other, up to so many megabytes."""
    size = 0
    for document in read_documents(files):
        text = "".join(document.pieces)
        size += len(text.encode())
        if megabytes is not None and size > 1e6 * megabytes:
            return
        yield text


def write_jsonl(texts: Iterator[str], path: Path) -> int:
    """Bytes of text that were written."""
    size = 0
    with path.open("w", encoding="utf-8") as file:
        for text in texts:
            size += len(text.encode())
            file.write(json.dumps({"text": text}) + "\n")
    return size


def tokens(files: list[Path], megabytes: float | None) -> dict[str, Any]:
    """tiktoken's `encode_to_numpy` in processes that hold the text in memory, against our tasks, by turns.

    Ours read blocks, check their hashes, encode, and write tokens; processes and tokenizers are ready before either.
    """
    with tempfile.TemporaryDirectory(prefix="daybreak-preparation-") as name:
        folder = Path(name)
        size = write_jsonl(texts_of(files, megabytes), folder / "text.jsonl")
        source = file_input(folder / "text.jsonl", PLAIN)
        blocks = list(write_blocks(source.read(Tally()), folder, pipeline._BLOCK_BYTES))
        write_json(folder / "tokenizer", gpt2_tokenizer().to_json())
        alone, ours = [], []
        for _ in range(_TURNS):
            alone.append(_seconds_together(_encode, folder, blocks))
            ours.append(_seconds_together(_tokenise, folder, blocks))
    rates = {"tiktoken": size / median(alone), "ours": size / median(ours)}
    return {"bytes": size, "workers": WORKERS, "seconds": {"tiktoken": alone, "ours": ours}, "bytes_per_second": rates}


def _seconds_together(function: Any, folder: Path, blocks: list[Block]) -> float:
    """From the moment at which every process is ready to that at which the last is done."""
    context = multiprocessing.get_context("spawn")
    ready, done = context.Barrier(WORKERS + 1), context.Barrier(WORKERS + 1)
    processes = [
        context.Process(target=function, args=(folder, blocks[number::WORKERS], ready, done))
        for number in range(WORKERS)
    ]
    for process in processes:
        process.start()
    ready.wait()
    began = time.monotonic()
    done.wait()
    seconds = time.monotonic() - began
    for process in processes:
        process.join()
    return seconds


def _encode(folder: Path, blocks: list[Block], ready: Any, done: Any) -> None:
    import tiktoken

    gpt2 = tiktoken.get_encoding("gpt2")
    gpt2.encode_to_numpy("warm", disallowed_special=())
    texts = ["".join(document.pieces) for block in blocks for document in read_block(block)]
    ready.wait()
    for text in texts:
        gpt2.encode_to_numpy(text, disallowed_special=())
    done.wait()


def _tokenise(folder: Path, blocks: list[Block], ready: Any, done: Any) -> None:
    rule = encoding.SplitRule(share=0.1, lowest=0, highest=1, boundary=None)
    encoding._loaded(folder / "tokenizer").encode("warm")
    ready.wait()
    for block in blocks:
        out = folder / f"tokens-{Path(block.stem).name}"
        encoding.tokenise(encoding.Tokenise(block, 0, 0, None, rule, folder / "tokenizer", out, keep_rejects=False))
    done.wait()


def _seconds_of_stages(source: Path, out: Path, options: dict[str, Any], workers: int = WORKERS) -> dict[str, float]:
    """What each stage of a preparation took."""
    seconds: dict[str, float] = {}
    stages = ("_read", "_clean", "_compare", "_tokenise", "_assemble", "inspect_corpus")

    def timed(name: str, function: Any) -> Any:
        def run(*words: Any, **more: Any) -> Any:
            began = time.monotonic()
            result = function(*words, **more)
            seconds[name] = seconds.get(name, 0.0) + time.monotonic() - began
            return result

        return run

    before = {name: getattr(pipeline, name) for name in stages}
    began = time.monotonic()
    try:
        for name, function in before.items():
            setattr(pipeline, name, timed(name, function))
        prepare([str(source)], out, tokenizer="gpt2", workers=Workers(workers), **options)
    finally:
        for name, function in before.items():
            setattr(pipeline, name, function)
    return {**seconds, "whole": time.monotonic() - began}


CLEANED = {"cleaning": Cleaning(mend=True, filter=True), "duplicates": "near"}


def whole(files: list[Path]) -> dict[str, Any]:
    """The command line, from its start to its end, on files as they are, packed or not."""
    size = sum(len(text.encode()) for text in texts_of(files, None))
    with tempfile.TemporaryDirectory(prefix="daybreak-preparation-") as name:
        out = Path(name) / "corpus"
        words = [sys.executable, "-m", "daybreak", "prepare", *map(str, files), "--clean", "--deduplicate", "near"]
        began = time.monotonic()
        said = subprocess.run(
            [*words, "--workers", str(WORKERS), "--out", str(out)], check=True, capture_output=True, text=True
        )
        seconds = time.monotonic() - began
        report = json.loads((out / "report.json").read_text())
    took = dict(re.findall(r"^(\w+): done in (.*?),", said.stderr, flags=re.MULTILINE))
    return {
        "bytes": size,
        "workers": WORKERS,
        "seconds": seconds,
        "bytes_per_second": size / seconds,
        "stages": took,
        "dropped": report["dropped"],
    }


def stages(files: list[Path], megabytes: float) -> dict[str, Any]:
    """Bytes a second of each stage in one process, of cleaning without sketches and of sketches alone."""
    with tempfile.TemporaryDirectory(prefix="daybreak-preparation-") as name:
        folder = Path(name)
        size = write_jsonl(texts_of(files, megabytes), folder / "text.jsonl")
        near = _seconds_of_stages(folder / "text.jsonl", folder / "near", CLEANED, 1)
        cleaned = _seconds_of_stages(folder / "text.jsonl", folder / "clean", {"cleaning": CLEANED["cleaning"]}, 1)
        sketched = _seconds_of_stages(folder / "text.jsonl", folder / "sketched", {"duplicates": "near"}, 1)
    seconds = {
        "reading": near["_read"],
        "cleaning": cleaned["_clean"],
        "sketches": sketched["_clean"],
        "cleaning and sketches": near["_clean"],
        "comparing": near["_compare"],
        "tokenising": near["_tokenise"],
        "assembling": near["_assemble"],
        "the page": near["inspect_corpus"],
    }
    return {"bytes": size, "seconds": seconds, "bytes_per_second": {key: size / each for key, each in seconds.items()}}


def datatrove(files: list[Path], megabytes: float, python: Path) -> dict[str, Any]:
    """Cleaning filters, and MinHash signatures, by datatrove and by ourselves, in two workers on the same text."""
    with tempfile.TemporaryDirectory(prefix="daybreak-preparation-") as name:
        folder = Path(name)
        size = write_jsonl(texts_of(files, megabytes), folder / "text.jsonl")
        script = Path(__file__).parent / "peers" / "datatrove_steps.py"
        lines = (folder / "text.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        for half in range(WORKERS):  # a task of datatrove is a file
            (folder / "halves").mkdir(exist_ok=True)
            (folder / "halves" / f"{half}.jsonl").write_text("".join(lines[half::WORKERS]), encoding="utf-8")
        theirs = {}
        for step in ("filters", "signatures"):
            words = [str(python), str(script), step, str(folder / "halves"), str(folder / step), str(WORKERS)]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            theirs[step] = float(done.stdout.splitlines()[-1])
        cleaning = Cleaning(filter=True)
        ours = {
            "filters": _seconds_of_stages(folder / "text.jsonl", folder / "f", {"cleaning": cleaning})["_clean"],
            "signatures": _seconds_of_stages(folder / "text.jsonl", folder / "s", {"duplicates": "near"})["_clean"],
        }
    return {"bytes": size, "workers": WORKERS, "seconds": {"datatrove": theirs, "daybreak": ours}}


def report() -> None:
    journal = Journal(RESULTS)
    for row in ("tokens", "whole", "stages", "datatrove"):
        for record in journal.records(row)[-1:]:
            print(json.dumps({key: record[key] for key in record if key not in ("machine", "torch")}, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tokens", "whole", "stages", "datatrove", "report"))
    parser.add_argument("files", nargs="*")
    parser.add_argument("--megabytes", type=float, help="of text to read; 20 for stages and datatrove, else all")
    parser.add_argument("--python", type=Path, help="of the environment with datatrove")
    asked = parser.parse_args()
    if asked.what == "report":
        report()
        return
    files = find_files(asked.files)
    match asked.what:
        case "tokens":
            found = tokens(files, asked.megabytes)
        case "whole":
            found = whole(files)
        case "stages":
            found = stages(files, asked.megabytes or 20)
        case "datatrove":
            if asked.python is None:
                parser.error("--python is missing: the interpreter of an environment with datatrove")
            found = datatrove(files, asked.megabytes or 20, asked.python)
    print(json.dumps(Journal(RESULTS).add(asked.what, **found), indent=2))


if __name__ == "__main__":
    main()
