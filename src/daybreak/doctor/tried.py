"""What is tried in a process of its own: compiling, ranks that meet, a vocabulary that loads without a network."""

import tempfile

import torch
import torch.distributed as dist

from daybreak.doctor.attempt import attempt
from daybreak.doctor.finding import Finding
from daybreak.duration import human_seconds

# By what the compiler's log says.
_REMEDIES = {
    "Python.h": "install python3-dev",
    "working triton installation": "pip install triton",
    "No working C++ compiler": "install g++, or let CXX name a compiler",
    "Failed to find C compiler": "install gcc, or let CC name a compiler",
}


def compilation(device: torch.device) -> Finding:
    """Compile a small function with an empty cache, and compare its gradient."""
    with tempfile.TemporaryDirectory(prefix="daybreak-doctor-") as cache:
        tried = attempt("compile", device.type, cache)
    if tried.problem is None:
        return Finding(f"Works: a small function took {human_seconds(tried.seconds)}, torch's start included.")
    if device.type == "cuda":
        costs = "training runs eager, which is slower; models with attention windows or ALiBi do not train"
    else:
        costs = "little; here training runs eager unless execution.compile=true, which saves up to a fifth of a step"
    remedies = [remedy for sign, remedy in _REMEDIES.items() if sign in tried.log]
    return Finding(f"torch.compile does not work: {tried.problem}.", "; ".join([costs, *remedies]))


def ranks() -> Finding:
    """Let two processes meet over gloo and add up; several GPUs need NCCL besides."""
    tried = attempt("ranks")
    if tried.problem is not None:
        return Finding(
            f"Two processes on this machine do not meet over gloo: {tried.problem}.",
            "torchrun cannot train here, one process alone can; GLOO_SOCKET_IFNAME=lo helps where this machine's "
            "own name leads nowhere",
        )
    found = f"Two processes met over gloo and added up in {human_seconds(tried.seconds)}."
    alone = torch.cuda.device_count() > 1 and not dist.is_nccl_available()
    return Finding(found, "only one GPU trains; install a torch with NCCL" if alone else "")


def tokenizer() -> Finding:
    """Whether the vocabulary of GPT-2's tokenizer is in tiktoken's cache; the network is not asked."""
    tried = attempt("tokenizer")
    if tried.problem is None:
        return Finding("GPT-2's vocabulary is in tiktoken's cache.")
    return Finding(
        f"GPT-2's vocabulary cannot be loaded: {tried.problem}.",
        "--tokenizer gpt2 downloads 1.5 MB; without a network, --tokenizer bpe:4096 works",
    )
