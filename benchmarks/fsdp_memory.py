"""How much memory a rank needs for a training step under FSDP2, counted without running it.

A step is carried out on fake tensors, which have sizes and no content, by one of R ranks that talk to nobody; every
storage that comes and goes is counted. `--check` runs small models for real on two gloo ranks, counts the same way, and
compares.

    python benchmarks/fsdp_memory.py                   # GPT-1B* at 1, 2, 4 and 8 ranks
    python benchmarks/fsdp_memory.py --check
"""

import argparse
import json
import os
import socket
import subprocess
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh

from daybreak.distributed import sharded
from daybreak.hardware import autocast
from daybreak.memory import counted
from daybreak.model.attention import dense_mask
from daybreak.model.gpt import count_parameters
from daybreak.model.kernels import Kernels
from daybreak.recipe import Recipe
from daybreak.training.optimizer import build_optimizers

LOSS_ROWS = 512
CHECKED = ("model.layers=4", "model.dim=256", "model.heads=4", "model.vocab_size=4096")


def count_a_step(recipe: Recipe, micro_batch: int, mesh: Any) -> dict[str, int]:
    """Bytes of a rank once its model stands, and at most during the second step, which has optimizer state."""
    device = torch.device("cpu")
    with counted() as memory:
        model = sharded(recipe.model, Kernels(LOSS_ROWS), mesh).to_empty(device=device)
        model_bytes = memory.now
        (optimizer,) = build_optimizers(recipe.optimizer, model)
        tokens = torch.zeros(micro_batch, recipe.row_length, dtype=torch.int64)
        for _ in range(2):
            memory.peak = memory.now
            with autocast(device, "bf16"):
                loss = model(tokens, tokens)
            loss.backward()
            in_backward = memory.peak
            optimizer.step()
            model.zero_grad(set_to_none=True)
            del loss
        return {"model": model_bytes, "state": memory.now, "forward and backward": in_backward, "peak": memory.peak}


def on_paper(recipe: Recipe, ranks: int, micro_batch: int) -> dict[str, int]:
    """The same of one of `ranks`, on tensors without content."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    mesh = init_device_mesh("cpu", (ranks,))
    dense_mask.cache_clear()  # of masks that another count's fake tensors made
    with FakeTensorMode():
        counts = count_a_step(recipe, micro_batch, mesh)
    dist.destroy_process_group()
    return counts


def for_real(recipe: Recipe, ranks: int, micro_batch: int) -> dict[str, int]:
    """The same, measured on the first of `ranks` gloo processes that really train."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = [sys.executable, __file__, "--rank", recipe.model_dump_json(), str(micro_batch)]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(words, env=os.environ | meeting | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(ranks)
    ]
    outputs = [process.communicate()[0] for process in processes]
    return json.loads(outputs[0].splitlines()[-1])


def _as_rank(recipe: Recipe, micro_batch: int) -> None:
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    print(json.dumps(count_a_step(recipe, micro_batch, mesh)), flush=True)
    dist.destroy_process_group()


def check() -> float:
    """Print paper and measurement beside each other; returns the largest relative difference of a peak."""
    print("| model | micro-batch | ranks | on paper, MB | measured, MB | ratio |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    worst = 0.0
    for name in ("gpt2-tiny", "gpt-star-127m"):
        recipe = Recipe.load(name, *CHECKED)
        for micro_batch in (1, 8):
            paper, real = (count(recipe, 2, micro_batch)["peak"] for count in (on_paper, for_real))
            worst = max(worst, abs(paper / real - 1))
            print(
                f"| {name}, {count_parameters(recipe.model) / 1e6:.1f} M | {micro_batch} | 2 | "
                f"{paper / 1e6:.1f} | {real / 1e6:.1f} | {paper / real:.3f} |"
            )
    return worst


def table(name: str) -> None:
    """Print what a rank needs at 1, 2, 4 and 8 ranks."""
    recipe = Recipe.load(name, "optimizer.kind=adamw", "optimizer.lr=2e-4")
    print(
        f"{name}: {count_parameters(recipe.model):,} parameters, fp32 with AdamW, bf16 autocast, "
        f"rows of {recipe.row_length} tokens; GB of one rank"
    )
    print("| ranks | micro-batch | state | forward and backward | peak |\n| ---: | ---: | ---: | ---: | ---: |")
    for ranks in (1, 2, 4, 8):
        for micro_batch in (1, 8):
            counts = on_paper(recipe, ranks, micro_batch)
            shown = " | ".join(f"{counts[part] / 1e9:.2f}" for part in ("state", "forward and backward", "peak"))
            print(f"| {ranks} | {micro_batch} | {shown} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="gpt-star-1b")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--rank", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank:
        _as_rank(Recipe.model_validate_json(arguments.rank[0]), int(arguments.rank[1]))
    elif arguments.check:
        worst = check()
        print(f"largest difference: {worst:.1%}")
        raise SystemExit(worst > 0.15)
    else:
        table(arguments.recipe)


if __name__ == "__main__":
    main()
