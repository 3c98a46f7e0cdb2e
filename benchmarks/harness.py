"""Four-choice items through lm-evaluation-harness: our class against its own `hf` class, on the same weights.

Items are made: a context of 60 to 80 tokens and four endings of 10 to 40, as HellaSwag's are. Both classes get the
same requests as text, so that the time covers all that they do with them. They are measured one after the other and
again; medians are compared. In fp32 both must choose the same endings, by the sum of log-likelihoods and by the mean
over characters.

python benchmarks/harness.py --items 100                                  # GPT-2 small, on what this machine has
python benchmarks/harness.py --shape 4x4x256x50257 --items 200 --rounds 3
python benchmarks/harness.py --items 10000 --precision bf16 --batch 64 128 256
python benchmarks/harness.py --items 10 --processor-time                  # on a machine that others use
"""

import argparse
import base64
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

from daybreak.data.tokenizer import END_OF_TEXT, Tokenizer, gpt2_tokenizer
from daybreak.evaluate.harness import DaybreakLM
from daybreak.evaluate.quiet import quiet
from daybreak.hardware import choose_device
from daybreak.model.gpt import build
from sampling import as_transformers, config_of

ENDINGS = 4


def made_items(tokenizer: Tokenizer, count: int, seed: int) -> list[tuple[str, list[str]]]:
    """Contexts and their endings, of words that are a token each."""
    rng = random.Random(seed)
    words = sorted(token.decode() for token in tokenizer.ranks if token[:1] == b" " and token[1:].isalpha())

    def text(least: int, most: int) -> str:
        return "".join(rng.choice(words) for _ in range(rng.randint(least, most)))

    return [(text(60, 80).lstrip(), [text(10, 40) for _ in range(ENDINGS)]) for _ in range(count)]


def as_requests(items: list[tuple[str, list[str]]]) -> list[Instance]:
    pairs = [(context, ending) for context, endings in items for ending in endings]
    return [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]


def tokenizer_of_transformers(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The same table of bytes and ranks."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ranks.tiktoken"
        ranks = sorted((rank, token) for token, rank in tokenizer.ranks.items())
        file.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in ranks))
        converted = TikTokenConverter(
            vocab_file=str(file), pattern=tokenizer.pattern, extra_special_tokens={END_OF_TEXT: tokenizer.end_of_text}
        ).converted()
    return PreTrainedTokenizerFast(
        tokenizer_object=converted, eos_token=END_OF_TEXT, bos_token=END_OF_TEXT, pad_token=END_OF_TEXT
    )


def choices(items: list[tuple[str, list[str]]], answers: list[tuple[float, bool]]) -> list[tuple[int, int]]:
    """Of each item the likeliest ending, and the likeliest by character."""
    found = []
    for number, (_, endings) in enumerate(items):
        sums = [answer[0] for answer in answers[ENDINGS * number : ENDINGS * (number + 1)]]
        means = [value / len(ending) for value, ending in zip(sums, endings, strict=True)]
        found.append((max(range(ENDINGS), key=sums.__getitem__), max(range(ENDINGS), key=means.__getitem__)))
    return found


def timed(
    lm: Any, requests: list[Instance], device: torch.device, clock: Callable[[], float]
) -> tuple[float, list[tuple[float, bool]]]:
    with quiet():
        began = clock()
        answers = lm.loglikelihood(requests)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return clock() - began, answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="12x12x768x50257", help="LAYERSxHEADSxDIMxVOCABULARY; GPT-2 small")
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 64], help="of the hf class; its fastest counts")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processor-time", action="store_true", help="not what passes meanwhile; for one thread")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.processor_time else time.perf_counter
    device, tokenizer = choose_device("auto"), gpt2_tokenizer()
    items = made_items(tokenizer, arguments.items, arguments.seed)
    requests = as_requests(items)
    on_cpu = build(config_of(arguments.shape), 0, torch.device("cpu"))
    with torch.no_grad():
        for parameter in on_cpu.parameters():  # far enough from zero that endings differ
            parameter.mul_(2.0)
    theirs = as_transformers(on_cpu).to(device)
    if arguments.precision == "bf16":
        theirs = theirs.bfloat16()
    model = on_cpu.to(device)
    ours = DaybreakLM(model, tokenizer, arguments.precision, model.config.context)
    their_tokenizer = tokenizer_of_transformers(tokenizer)
    contestants = {"ours": ours} | {
        f"hf, batch {batch}": HFLM(pretrained=theirs, tokenizer=their_tokenizer, batch_size=batch)
        for batch in arguments.batch
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    chosen, answers = {}, {}
    for lm in contestants.values():
        timed(lm, requests[: 2 * ENDINGS], device, clock)
    for _ in range(arguments.rounds):
        for name, lm in contestants.items():
            took, answers[name] = timed(lm, requests, device, clock)
            seconds[name].append(took)
            chosen[name] = choices(items, answers[name])
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    fastest = min((name for name in contestants if name != "ours"), key=medians.__getitem__)
    same = sum(mine == its for mine, its in zip(chosen["ours"], chosen[fastest], strict=True))
    apart = max(abs(mine[0] - its[0]) for mine, its in zip(answers["ours"], answers[fastest], strict=True))
    if arguments.precision == "fp32":
        assert same == len(items), f"{len(items) - same} of {len(items)} items are answered otherwise"
        assert apart < 0.01, f"log-likelihoods differ by up to {apart}"
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{len(items)} items, {arguments.shape}, {arguments.precision}, {where}; {arguments.rounds} rounds, medians")
    for name, median in medians.items():
        print(f"{name:<14} {median:8.2f} s  {len(items) / median:8.1f} items/s")
    print(f"same answers {same} of {len(items)}; log-likelihoods differ by at most {apart:.2g} nats")
    print(f"ratio to {fastest}: {medians[fastest] / medians['ours']:.2f}")


if __name__ == "__main__":
    main()
