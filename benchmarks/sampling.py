"""Sampling with the cache, one sequence, on the CPU: tokens/s against `generate` of transformers, interleaved.

Both have the same weights. Ours samples as `Run.sample` does on a CPU: in fp32, laid out once (its time is shown);
theirs is measured in fp32 and in bf16, and compared by its faster one. Greedy, both must make the same tokens in fp32.

python benchmarks/sampling.py                            # three shapes, greedy and drawn, 1 and 2 threads
python benchmarks/sampling.py --shape 6x6x384x50304 --threads 1 --rounds 9
python benchmarks/sampling.py --threads 1 --processor-time    # on a machine that others use
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from daybreak.exchange.gpt2 import GPT2
from daybreak.exchange.pieces import to_theirs
from daybreak.model.decoding import laid_out_for_one_row
from daybreak.model.gpt import GPT, ModelConfig, build
from daybreak.sampling.generate import generate, make_row
from daybreak.sampling.settings import SamplingConfig

CPU = torch.device("cpu")
SHAPES = ("4x4x128x66", "6x6x384x4096", "6x6x384x50304")
PROMPT = 8
WAYS = {"greedy": SamplingConfig(greedy=True), "top-k 50": SamplingConfig(temperature=0.8, top_k=50)}


def config_of(shape: str) -> ModelConfig:
    layers, heads, dim, vocab_size = map(int, shape.split("x"))
    return ModelConfig(
        layers=layers,
        heads=heads,
        dim=dim,
        context=256,
        vocab_size=vocab_size,
        mlp={"kind": "plain", "activation": "gelu_tanh"},
    )


def as_transformers(model: GPT) -> GPT2LMHeadModel:
    """The same GPT-2, with the same weights, in transformers."""
    settings = GPT2.settings(model.config) | dict.fromkeys(("bos_token_id", "eos_token_id"))
    theirs = GPT2LMHeadModel(GPT2Config(**settings)).eval()
    theirs.transformer.load_state_dict(
        {
            name.removeprefix(GPT2.prefix): tensor
            for name, tensor in to_theirs(GPT2.placed(model.config), model.state_dict()).items()
        }
    )
    return theirs


def our_run(model: GPT, sampling: SamplingConfig, tokens: int) -> Callable[[], list[int]]:
    prompt, config = list(range(1, 1 + PROMPT)), model.config

    @torch.no_grad()
    def run() -> list[int]:
        row = make_row(prompt, tokens=tokens, sampling=sampling)
        made = generate(model, [row], vocab_size=config.vocab_size, sampling=sampling)
        return [chosen.token for (chosen,) in made]

    return run


def their_run(model: GPT2LMHeadModel, sampling: SamplingConfig, tokens: int) -> Callable[[], list[int]]:
    prompt = torch.arange(1, 1 + PROMPT)[None]
    drawn = {} if sampling.greedy else {"temperature": sampling.temperature, "top_k": sampling.top_k}

    def run() -> list[int]:
        made = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=tokens,
            do_sample=not sampling.greedy,
            use_cache=True,
            pad_token_id=0,
            **drawn,
        )
        return made[0, PROMPT:].tolist()

    return run


def timed(run: Callable[[], list[int]], tokens: int, clock: Callable[[], float]) -> float:
    """Tokens a second, the prompt's pass included."""
    began = clock()
    assert len(run()) == tokens
    return tokens / (clock() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", default=SHAPES, help="LAYERSxHEADSxDIMxVOCABULARY")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processor-time", action="store_true", help="not what passes meanwhile; for one thread")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.processor_time else time.perf_counter
    seconds = "seconds of processor time" if arguments.processor_time else "seconds"
    print(f"{arguments.tokens} tokens behind a prompt of {PROMPT}, {seconds}, medians of {arguments.rounds} rounds")
    print("| model | threads | tokens | ours/s | transformers/s, fp32 | bf16 | ratio to its faster | laid out in ms |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for shape in arguments.shape:
        trained = build(config_of(shape), 0, CPU)
        began = time.perf_counter()
        model = laid_out_for_one_row(trained)
        laying_out = 1000 * (time.perf_counter() - began)
        fp32, bf16 = as_transformers(model), as_transformers(model).bfloat16()
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            for way, sampling in WAYS.items():
                runs = [
                    our_run(model, sampling, arguments.tokens),
                    their_run(fp32, sampling, arguments.tokens),
                    their_run(bf16, sampling, arguments.tokens),
                ]
                if sampling.greedy:
                    assert runs[0]() == runs[1]()
                rounds = [[timed(run, arguments.tokens, clock) for run in runs] for _ in range(arguments.rounds + 1)]
                ours, *theirs = (
                    statistics.median(each) for each in zip(*rounds[1:], strict=True)
                )  # the first warms up
                print(
                    f"| {shape} | {threads} | {way} | {ours:.0f} | {theirs[0]:.0f} | {theirs[1]:.0f} "
                    f"| {ours / max(theirs):.2f} | {laying_out:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
