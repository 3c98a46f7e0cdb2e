"""Sampling from many prompts of different lengths, on the CPU: tokens/s by how many go on at once.

Against transformers by turns: the same prompts, the same number of tokens each, greedy, in fp32. Its `generate` takes
as many at once, padded on the left to one length.

python benchmarks/sampling_many.py                                   # 64 prompts, two shapes, 1, 8, 32 and 64 at once
python benchmarks/sampling_many.py --shape 6x6x384x4096 --at-once 1 32 --rounds 5 --processor-time
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from transformers import GPT2LMHeadModel

from daybreak.model.decoding import laid_out_for_one_row
from daybreak.model.gpt import GPT, build
from daybreak.sampling.generate import generate, make_row
from daybreak.sampling.settings import SamplingConfig
from sampling import CPU, as_transformers, config_of

GREEDY = SamplingConfig(greedy=True)
SHAPES = ("4x4x128x66", "6x6x384x4096")


def made_prompts(count: int, vocab_size: int) -> list[list[int]]:
    """Of 4 to 67 tokens."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(4, 68, (count,), generator=generator).tolist()
    return [torch.randint(1, vocab_size, (length,), generator=generator).tolist() for length in lengths]


def our_run(model: GPT, prompts: list[list[int]], tokens: int, at_once: int) -> Callable[[], list[list[int]]]:
    def run() -> list[list[int]]:
        rows = [make_row(prompt, tokens=tokens, sampling=GREEDY) for prompt in prompts]
        made: dict[object, list[int]] = {row: [] for row in rows}
        for step in generate(model, rows, vocab_size=model.config.vocab_size, sampling=GREEDY, room=at_once):
            for chosen in step:
                made[chosen.row].append(chosen.token)
        return list(made.values())

    return run


def their_run(
    model: GPT2LMHeadModel, prompts: list[list[int]], tokens: int, at_once: int
) -> Callable[[], list[list[int]]]:
    def run() -> list[list[int]]:
        made = []
        for start in range(0, len(prompts), at_once):
            batch = prompts[start : start + at_once]
            longest = max(map(len, batch))
            ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in batch])
            mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in batch])
            out = model.generate(ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, pad_token_id=0)
            made += out[:, longest:].tolist()
        return made

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shape", nargs="+", default=("4x4x128x66", "6x6x384x4096"), help="LAYERSxHEADSxDIMxVOCABULARY"
    )
    parser.add_argument("--at-once", nargs="+", type=int, default=[1, 8, 32, 64])
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processor-time", action="store_true", help="not what passes meanwhile; for one thread")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clock = time.process_time if arguments.processor_time else time.perf_counter
    seconds = "seconds of processor time" if arguments.processor_time else "seconds"
    asked, tokens = arguments.prompts, arguments.tokens
    print(f"{asked} prompts, {tokens} tokens each, 1 thread, {seconds}, medians of {arguments.rounds}")
    print("| model | at once | ours/s | transformers/s | ratio | the same texts |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for shape in arguments.shape:
        model = laid_out_for_one_row(build(config_of(shape), 0, CPU))
        theirs = as_transformers(model)
        prompts = made_prompts(asked, model.config.vocab_size)
        for at_once in arguments.at_once:
            runs = [our_run(model, prompts, tokens, at_once), their_run(theirs, prompts, tokens, at_once)]
            speeds: list[list[float]] = [[], []]
            for _ in range(arguments.rounds):
                texts = []
                for run, measured in zip(runs, speeds, strict=True):
                    began = clock()
                    texts.append(run())
                    measured.append(asked * tokens / (clock() - began))
            ours, its = (statistics.median(each) for each in speeds)
            same = sum(mine == other for mine, other in zip(*texts, strict=True))
            print(
                f"| {shape} | {at_once} | {ours:.0f} | {its:.0f} | {ours / its:.2f} | {same} of {asked} |", flush=True
            )


if __name__ == "__main__":
    main()
