"""How much memory work takes, counted tensor by tensor, since a process's own size says little of them."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@final
class TensorMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of all storages that operations inside it made and that still live; and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # its local tensors come here by themselves
        for tensor in tree_leaves((args, kwargs or {})):
            self._note(tensor, made_here=False)  # a view of it is no new storage
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            self._note(tensor, made_here=True)
        return result

    def resized(self, storage: torch.UntypedStorage, size: int) -> None:
        """FSDP2 frees and fills what it gathers by resizing storages, past all operations."""
        if storage._cdata in self._sizes:
            self._add(size - self._sizes[storage._cdata])
            self._sizes[storage._cdata] = size

    def _note(self, tensor: Any, *, made_here: bool) -> None:
        if not isinstance(tensor, torch.Tensor) or tensor.device.type == "meta":
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes() if made_here else 0
        self._add(self._sizes[key])
        weakref.finalize(storage, lambda: self._add(-self._sizes.pop(key, 0)))

    def _add(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)


@contextmanager
def counted() -> Iterator[TensorMemory]:
    """Count all tensors made inside, on any device; compiled code, which makes its own, is not seen."""
    memory = TensorMemory()
    resize = torch.UntypedStorage.resize_

    def resize_and_count(storage: torch.UntypedStorage, size: int) -> Any:
        result = resize(storage, size)
        memory.resized(storage, size)
        return result

    torch.UntypedStorage.resize_ = resize_and_count  # type: ignore[assignment, method-assign]
    try:
        with memory:
            yield memory
    finally:
        torch.UntypedStorage.resize_ = resize  # type: ignore[method-assign]


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The most bytes that tensors made in `work` took at once: by CUDA's allocator, elsewhere counted."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with counted() as memory:
        work()
    return memory.peak
