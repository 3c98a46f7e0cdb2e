"""Seconds of training steps of transformers' GPT2LMHeadModel: forward, backward, clipping, update; nothing around.

python benchmarks/peers/transformers_step.py --shape 6 6 384 --context 256 --batch 8 --vocab 50304 --steps 8 --tuned
"""

import argparse
import json
import time
from contextlib import nullcontext

import torch
from transformers_trainer import build_model


def step_seconds(
    shape: tuple[int, int, int], context: int, batch: int, vocab: int, steps: int, *, is_tuned: bool
) -> list[float]:
    """Each step's time.

    Args:
        is_tuned: bf16 autocast and the fused AdamW; else fp32 and torch's AdamW as it is built without asking.
    """
    torch.manual_seed(0)
    model = build_model(shape, context, vocab).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, fused=True if is_tuned else None)
    seconds = []
    for _ in range(steps):
        tokens = torch.randint(vocab, (batch, context))
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16) if is_tuned else nullcontext():
            loss = model(tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        seconds.append(time.perf_counter() - began)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, required=True)
    parser.add_argument("--tuned", action="store_true")
    for option in ("--context", "--batch", "--vocab", "--steps"):
        parser.add_argument(option, type=int, required=True)
    asked = parser.parse_args()
    sizes = (tuple(asked.shape), asked.context, asked.batch, asked.vocab, asked.steps)
    print(json.dumps(step_seconds(*sizes, is_tuned=asked.tuned)))


if __name__ == "__main__":
    main()
