"""What Daybreak does on one GPU, in one command that ends within nine minutes; and the same at toy size on a CPU.

python benchmarks/gpu.py prepare --text wikipedia_en.jsonl.xz  # data/bench-gpu: 25 M GPT-2 tokens, 50 MB to carry
python benchmarks/gpu.py --out results                         # tests, plain, cold, target, ours; stock if time is left
python benchmarks/gpu.py --only stock                          # or any of them; what was measured stays in --out
python benchmarks/gpu.py --only tune                           # settings of AdamW for the target: 9 runs of 50 s
python benchmarks/gpu.py --toy                                 # all of it in sizes of seconds

It needs the repository (PYTHONPATH=src suffices), the folder of the corpus, and what check_machine() names. Each step
has its own limit; one that fails is noted and leaves the others. A run of minutes passes several times over the corpus.
"""

import argparse
import importlib.util
import os
import sys
import time
from pathlib import Path

_MODULES = (
    "torch",
    "numpy",
    "pydantic",
    "safetensors",
    "tiktoken",
    "tokenizers",
    "typer",
    "rich",
    "pytest",
    "hypothesis",
)
_STEPS = ("tests", "plain", "cold", "target", "ours", "stock", "tune")
_PYDANTIC_NEEDS = ("pydantic_core", "annotated_types", "typing_inspection", "typing_extensions")


def check_machine(*, needs_cuda: bool) -> None:
    """End with a plain word where something is missing that no step could do without."""
    missing = [name for name in (*_MODULES, *_PYDANTIC_NEEDS) if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"missing here: {', '.join(missing)}. Without a network, carry them as wheels: pip download --no-deps, "
            "then pip install --no-index --no-deps --target SITE *.whl, and SITE into PYTHONPATH"
        )
    if importlib.util.find_spec("daybreak") is None:
        sys.exit("daybreak is not importable: install the repository, or set PYTHONPATH to its src folder")
    import torch

    if needs_cuda and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device here; --toy runs on a CPU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("prepare", "measure"), default="measure")
    parser.add_argument("--text", type=Path, help="documents to prepare; wikipedia_en.jsonl.xz in DAYBREAK_TEST_DATA")
    parser.add_argument("--corpus", type=Path, default=Path("data/bench-gpu"), help="the prepared corpus")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench-gpu"), help="folder for results.json and results.md"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("runs/bench-gpu-work"), help="folder for runs and compiled code"
    )
    parser.add_argument("--only", nargs="+", choices=_STEPS, default=[], help="some steps")
    parser.add_argument("--minutes", type=float, default=9.0, help="of all steps; one that does not fit is not begun")
    parser.add_argument("--ours", default="daybreak-124m", help="the fast recipe")
    parser.add_argument(
        "--tuned", nargs="+", default=[], metavar="KEY=VALUE", help="further settings of the tuned peer"
    )
    parser.add_argument("--toy", action="store_true", help="sizes of seconds, on a CPU, with a text of its own")
    asked = parser.parse_args()
    began = time.monotonic()
    check_machine(needs_cuda=asked.what == "measure" and not asked.toy)
    # Only now, so that what is missing is said in plain words.
    from gpu_corpus import prepare, prepare_toy
    from gpu_plan import FULL, TOY
    from gpu_steps import Bench, measure

    if asked.what == "prepare":
        data = Path(os.environ.get("DAYBREAK_TEST_DATA", "."))
        prepare(asked.text or data / "corpus" / "wikipedia_en.jsonl.xz", asked.corpus)
        return
    corpus = prepare_toy(asked.work) if asked.toy else asked.corpus
    if not (corpus / "manifest.json").exists():
        sys.exit(f"{corpus} holds no corpus; python benchmarks/gpu.py prepare makes one")
    bench = Bench(
        plan=TOY if asked.toy else FULL,
        corpus=corpus.resolve(),
        out=(asked.out / "toy" if asked.toy else asked.out).resolve(),
        work=asked.work.resolve(),
        ours=asked.ours,
        tuned=tuple(asked.tuned),
        ends=began + 60 * asked.minutes,
    )
    sys.exit(measure(bench, asked.only))


if __name__ == "__main__":
    main()
