"""Ranks: how processes meet, agree, and hold one model between them.

Start several with `torchrun --nproc-per-node N -m daybreak train …`; a process that no launcher started is alone, and
everything here then does nothing.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Self, final

import torch
import torch.distributed as dist
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from daybreak.configuration import Configuration
from daybreak.duration import Duration, DurationField, Unit
from daybreak.errors import LostRankError, UserError
from daybreak.model.gpt import GPT, ModelConfig, build
from daybreak.model.kernels import Kernels
from daybreak.model.prediction import PredictionConfig
from daybreak.watch import Watch

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_SECONDS_TO_MEET = 300.0
_SLICE = timedelta(seconds=2)


@final
class ParallelConfig(Configuration):
    """How ranks share the work.

    Attributes:
        kind: `ddp` gives each rank the whole model; `fsdp` a share of it (Zhao et al. 2023), gathered block by block.
        replicate: `fsdp` shards within a node and replicates across nodes, instead of sharding over all ranks.
        timeout: how long a rank may be silent before the others end.
        stall: how long ranks wait for one another before all end.
    """

    kind: Literal["ddp", "fsdp"] = "ddp"
    replicate: bool = False
    timeout: DurationField = Duration(60, Unit.SECONDS)
    stall: DurationField = Duration(1800, Unit.SECONDS)

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        if self.replicate and self.kind != "fsdp":
            raise ValueError("parallel.replicate = true needs parallel.kind = fsdp; ddp always replicates")
        for name, duration in (("timeout", self.timeout), ("stall", self.stall)):
            if duration.unit is not Unit.SECONDS or duration.amount <= 0:
                raise ValueError(f"parallel.{name} = {duration} is no time; write 60s or 30m")
        return self


@final
@dataclass(frozen=True)
class Ranks:
    """This process among those of the run. Alone, it agrees with itself.

    Attributes:
        rank: from 0; the first speaks, decides by its clock, and writes the run's folder.
        count: of all nodes.
        local_rank: within its node.
        local_count: of its node.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    _watch: Watch | None = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def enter(self, stage: str) -> None:
        """Say what this rank does now; the others name it if this one is lost."""
        if self._watch is not None:
            self._watch.stage = stage

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each value summed over ranks, in float64."""
        if self.count == 1:
            return [float(value) for value in values]
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def any(self, flag: bool) -> bool:
        """Whether it holds on some rank."""
        return self.sums([flag])[0] > 0

    def smallest(self, value: float) -> float:
        """The least of all ranks' values."""
        return min(self.sums([value if rank == self.rank else 0.0 for rank in range(self.count)]))

    def of_first(self, *values: float) -> list[float]:
        """The first rank's values, on every rank."""
        return self.sums([value if self.first else 0.0 for value in values])

    def share(self, make: Callable[[], Any]) -> Any:
        """What the first rank makes, a JSON value, on every rank."""
        if self.count == 1:
            return make()
        # As bytes of JSON: torch's own exchange of objects pickles them.
        content = json.dumps(make()).encode() if self.first else b""
        size = torch.tensor([len(content)])
        dist.broadcast(size, src=0)
        text = torch.empty(int(size), dtype=torch.uint8)
        if self.first:
            text.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        dist.broadcast(text, src=0)
        return json.loads(text.numpy().tobytes())

    def spread(self, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """The first rank's tensors on every rank, one at a time, on the CPU; what other ranks give is not looked at."""
        if self.count == 1:
            yield from tensors.items()
            return
        described = [[name, list(tensor.shape), str(tensor.dtype)] for name, tensor in tensors.items()]
        for name, shape, dtype in self.share(lambda: described):
            tensor = torch.empty(shape, dtype=getattr(torch, dtype.removeprefix("torch.")))
            if self.first:
                tensor.copy_(tensors[name])
            dist.broadcast(tensor, src=0)
            yield name, tensor

    def wait(self) -> None:
        """Go on when every rank has come here."""
        self.sums([0.0])


ALONE = Ranks()


@contextmanager
def joined(config: ParallelConfig) -> Iterator[Ranks]:
    """Meet the other ranks that torchrun, or whatever sets its variables, has started.

    Raises:
        LostRankError: another rank died, ended with an error, or does not come; named, with its stage.
        UserError: the environment does not say where to meet.
    """
    if launched_ranks() == 1:
        yield ALONE
        return
    rank, count = _from_environment("RANK"), _from_environment("WORLD_SIZE")
    if rank >= count:
        raise UserError(f"RANK = {rank} in the environment is none of WORLD_SIZE = {count}; start ranks with torchrun")
    local_rank = _from_environment("LOCAL_RANK", default=0)
    local_count = _from_environment("LOCAL_WORLD_SIZE", default=1)
    held_by_launcher = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    holds_store = rank == 0 and not held_by_launcher
    timeout, stall = config.timeout.amount, timedelta(seconds=config.stall.amount)
    try:
        store = _meeting_point(holds_store)
        watch = Watch(_meeting_point(False), rank, count, holds_store=holds_store, timeout=timeout)
        watch.start()
    except dist.DistError as error:
        raise LostRankError(f"rank {rank} of {count} cannot meet the others: {str(error).splitlines()[0]}") from None
    try:
        # Values that ranks agree on stay on the CPU; gradients go where the model is.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "cpu:gloo"
        group = dist.PrefixStore("group", store)
        dist.init_process_group(backend, store=group, rank=rank, world_size=count, timeout=stall)
        ranks = Ranks(rank, count, local_rank, local_count, watch)
        yield ranks
        ranks.enter("the end")
        ranks.wait()
    except BaseException as error:
        ended = watch.explain(error) if _is_between_ranks(error) else error
        watch.end(ended)
        said = watch.said_once(ended)
        if said is error:
            raise
        raise said from error
    else:
        watch.end(None)
        dist.destroy_process_group()
    finally:
        watch.close()


def require_alone() -> None:
    """Raises UserError if a launcher has started this process with others."""
    if launched_ranks() != 1:
        raise UserError("this looks at one process on one device; start it without torchrun")


def _is_between_ranks(error: BaseException) -> bool:
    """Whether a failure is one of communication, which another rank may have caused."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in ("gloo", "nccl"))
    )


def _meeting_point(holds_store: bool) -> dist.Store:
    """A connection to the store where ranks leave words for one another: the launcher's, or else the first rank's."""
    host, port = os.environ.get("MASTER_ADDR", "127.0.0.1"), _from_environment("MASTER_PORT")
    deadline = time.monotonic() + _SECONDS_TO_MEET
    while True:  # in slices, between which a signal is heard
        try:
            store = dist.TCPStore(host, port, is_master=holds_store, timeout=_SLICE)
            break
        except dist.DistNetworkError:
            if holds_store or time.monotonic() > deadline:
                raise
    store.set_timeout(timedelta(seconds=_SECONDS_TO_MEET))
    return dist.PrefixStore(f"daybreak/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def launched_ranks() -> int:
    """How many ranks torchrun started; 1 without it."""
    return _from_environment("WORLD_SIZE", default=1)


def _from_environment(name: str, default: int | None = None) -> int:
    value = os.environ.get(name, default)
    if value is None or not str(value).isdecimal():
        what = "is not in the environment, though WORLD_SIZE is" if value is None else f"= {value} is no number"
        raise UserError(f"{name} {what}; start ranks with torchrun, or unset WORLD_SIZE")
    return int(value)


def build_shared(
    config: ModelConfig,
    seed: int,
    device: torch.device,
    kernels: Kernels,
    parallel: ParallelConfig,
    ranks: Ranks,
    prediction: PredictionConfig | None = None,
    separator: int | None = None,
) -> GPT:
    """An initialised model as `ranks` hold it between them: whole on each, or under FSDP2 a share on each."""
    if ranks.count == 1 or parallel.kind == "ddp":
        return build(config, seed, device, kernels, prediction, separator)
    from torch.distributed.device_mesh import init_device_mesh

    shape: tuple[int, ...] = (ranks.count,)
    if parallel.replicate:
        shape = (ranks.count // ranks.local_count, ranks.local_count)
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=("replicate", "shard")[-len(shape) :])
    model = sharded(config, kernels, mesh, prediction, separator).to_empty(device=device)
    initial = dict(build(config, seed, torch.device("cpu")).named_parameters()) if ranks.first else {}
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in ranks.spread(initial):
            own[name].copy_(shard_like(own[name], tensor))
    return model


def sharded(
    config: ModelConfig,
    kernels: Kernels,
    mesh: "DeviceMesh",
    prediction: PredictionConfig | None = None,
    separator: int | None = None,
) -> GPT:
    """A model over a mesh by FSDP2, its parameters still on `meta`."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    with torch.device("meta"):
        model = GPT(config, kernels, prediction, separator)
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
        register_fsdp_forward_method(block, "largest_logit")
    # The root holds embedding, head and norms; it too gives up what it gathered once its forward pass is over.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    for method in ("logits", "next_logits", "largest_logits"):
        register_fsdp_forward_method(model, method)
    return model


def forward_of(model: GPT, parallel: ParallelConfig, ranks: Ranks) -> nn.Module:
    """What computes a training loss on every rank and brings gradients together as their mean."""
    if ranks.count == 1 or parallel.kind == "fsdp":
        return model
    return DistributedDataParallel(model, gradient_as_bucket_view=True)


def synchronise_gradients(forward: nn.Module, now: bool) -> None:
    """Under DDP gradients are reduced behind the last micro-batch only; FSDP2 reduces each, to hold only shards."""
    if isinstance(forward, DistributedDataParallel):
        forward.require_backward_grad_sync = now


def full_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor that may be sharded; every rank must ask."""
    if not dist.is_initialized():
        return tensor
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_part(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor that may be sharded."""
    if not dist.is_initialized():
        return tensor
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(tensor: Tensor, ranks: Ranks) -> Tensor:
    """As `full_tensor`, for the first rank alone, and of what was sharded on its CPU: so one is whole at a time."""
    full = full_tensor(tensor)
    if full is tensor:
        return full.contiguous()
    return full.to("cpu") if ranks.first else full.new_empty(0)


def shard_like(own: Tensor, tensor: Tensor) -> Tensor:
    """This rank's share of a whole tensor, laid out as `own` is, where `own` is."""
    tensor = tensor.to(own.device)
    if not dist.is_initialized():
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(own, DTensor) and tensor.shape == own.shape:
        return distribute_tensor(tensor, own.device_mesh, own.placements, src_data_rank=None)
    return tensor
