"""What is tried in a process of its own, so that a crash or a hang does not end the doctor.

python -m daybreak.doctor.probe compile cpu CACHE    compiles a small function, forward and backward
python -m daybreak.doctor.probe ranks                lets two processes add up what each of them holds
python -m daybreak.doctor.probe tokenizer            loads GPT-2's vocabulary without a network
"""

import os
import subprocess
import sys
from datetime import timedelta

_TIME_TO_MEET = timedelta(seconds=40)


def compile_something(device: str, cache: str) -> None:
    """Compile a small function on a device and compare its gradient with that of the plain one."""
    # One thread: a pool of compilers would outlive the process that is timed.
    os.environ.update(TORCHINDUCTOR_CACHE_DIR=cache, TRITON_CACHE_DIR=cache, TORCHINDUCTOR_COMPILE_THREADS="1")

    import torch
    from torch import Tensor
    from torch.nn import functional

    def loss(x: Tensor) -> Tensor:
        return (functional.gelu(x) * x.square()).sum()

    values = torch.linspace(-2, 2, 4096, device=device)
    gradients: list[Tensor] = []
    for function in (loss, torch.compile(loss, dynamic=False)):
        x = values.clone().requires_grad_()
        gradients += torch.autograd.grad(function(x), x)
    torch.testing.assert_close(*gradients)


def add_up_over_ranks(port: int = 0) -> None:
    """Meet another rank over gloo on this machine and add up what both hold; without a port, start that other first."""
    import torch
    import torch.distributed as dist

    first = not port
    store = dist.TCPStore("127.0.0.1", port, is_master=first, wait_for_workers=False, timeout=_TIME_TO_MEET)
    if first:
        subprocess.Popen([sys.executable, "-m", "daybreak.doctor.probe", "ranks", str(store.port)])
    dist.init_process_group("gloo", store=store, rank=0 if first else 1, world_size=2, timeout=_TIME_TO_MEET)
    total = torch.tensor([1.0 if first else 2.0])
    dist.all_reduce(total)
    dist.barrier()
    dist.destroy_process_group()
    if total.item() != 3.0:
        raise ArithmeticError(f"1 + 2 came out as {total.item()} over two ranks")


def load_vocabulary() -> None:
    """Load GPT-2's vocabulary from tiktoken's cache, or fail."""
    import tiktoken.load

    def refuse(blobpath: str) -> bytes:
        raise FileNotFoundError(f"tiktoken's cache lacks {blobpath.rpartition('/')[2]}")

    tiktoken.load.read_file = refuse  # what would ask the network
    tiktoken.get_encoding("gpt2")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["compile", device, cache]:
            compile_something(device, cache)
        case ["ranks", *port]:
            add_up_over_ranks(*map(int, port))
        case ["tokenizer"]:
            load_vocabulary()
        case words:
            raise SystemExit(f"nothing to try is called {' '.join(words)}")
