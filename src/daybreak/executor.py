"""A function over many tasks: in this process, in others on this machine, or on a Ray cluster.

The only file that knows of Ray. Tasks leave their results on disk; what they return is small.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Literal, TypeVar, final

from daybreak.errors import UserError

Engine = Literal["here", "ray"]
Task = TypeVar("Task")
Result = TypeVar("Result")
_WAITING_FOR_EACH = 2  # tasks that lie ready for each worker
_ATTEMPTS_ON_RAY = 3  # a machine that is lost takes its tasks with it


@final
@dataclass(frozen=True)
class Workers:
    """Who does the work.

    Attributes:
        count: processes; with one, on this machine, it is this process. On Ray, the most tasks at once; with none, as
            many as the cluster has cores.
        engine: `here`, or `ray`: the cluster that `ray start` made, whose machines share a file system with this one.
        cores: what each task is given of a machine of the cluster.
        gpus: the same; a GPU may be shared, as 0.5.
    """

    count: int = 1
    engine: Engine = "here"
    cores: int = 1
    gpus: float = 0.0


def run_tasks(
    function: Callable[[Task], Result], tasks: Iterable[Task], workers: Workers
) -> Iterator[tuple[Task, Result]]:
    """Each task with its result, as they come; the tasks begin in their order, and are asked for as they can begin.

    Args:
        function: of a module; it and its tasks are sent to the workers.

    Raises:
        UserError: raised by a task, or a worker was lost.
    """
    if workers.engine == "ray":
        yield from _on_ray(function, tasks, workers)
    elif workers.count == 1 or (isinstance(tasks, Sized) and len(tasks) < 2):
        for task in tasks:
            yield task, function(task)
    else:
        yield from _in_processes(function, tasks, workers.count)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with(parent: int) -> None:
    """End this process soon after its parent, however that ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _in_processes(
    function: Callable[[Task], Result], tasks: Iterable[Task], count: int
) -> Iterator[tuple[Task, Result]]:
    pool = ProcessPoolExecutor(count, get_context("spawn"), _begin_worker, (os.getpid(),))
    ahead = iter(tasks)
    running: dict[Future[Result], Task] = {}

    def submit(number: int) -> None:
        for _, task in zip(range(number), ahead, strict=False):
            running[pool.submit(function, task)] = task

    try:
        submit(_WAITING_FOR_EACH * count)
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                task = running.pop(future)
                submit(1)
                yield task, future.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, perhaps for want of memory; the same command goes on where it was, with "
            "fewer --workers if it happens again"
        ) from None
    finally:
        _end(pool)


def _end(pool: ProcessPoolExecutor) -> None:
    """Without waiting for tasks that nobody waits for; what they did not finish is done again."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def _begin_worker(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with(parent)


def _on_ray(
    function: Callable[[Task], Result], tasks: Iterable[Task], workers: Workers
) -> Iterator[tuple[Task, Result]]:
    ray = _ray()
    wanted = {"num_cpus": workers.cores, "num_gpus": workers.gpus}
    remote = ray.remote(**wanted, max_retries=_ATTEMPTS_ON_RAY)(function)
    at_once = workers.count or _fitting(ray.cluster_resources(), workers)
    ahead = iter(tasks)
    running: dict[Any, Task] = {}
    try:
        while True:
            for _, task in zip(range(at_once - len(running)), ahead, strict=False):
                running[remote.remote(task)] = task
            if not running:
                return
            done, _ = ray.wait(list(running), num_returns=1)
            for reference in done:
                yield running.pop(reference), ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise UserError(f"the Ray cluster failed: {error}; the same command goes on where it was") from error
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _fitting(resources: Mapping[str, float], workers: Workers) -> int:
    """How many tasks a cluster can do at once.

    Raises:
        UserError: not even one.
    """
    fitting = resources.get("CPU", 0.0) // workers.cores
    if workers.gpus:
        fitting = min(fitting, resources.get("GPU", 0.0) // workers.gpus)
    if not fitting:
        raise UserError(
            f"the Ray cluster has {resources.get('CPU', 0):g} cores and {resources.get('GPU', 0):g} GPUs, which do not "
            f"suffice for one task of {workers.cores} cores and {workers.gpus:g} GPUs"
        )
    return int(fitting)


def _ray() -> Any:
    """Ray, joined to the cluster that is there.

    Raises:
        UserError: it is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--engine ray needs Ray: pip install 'daybreak[ray]'") from None
    if not ray.is_initialized():
        try:
            ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError:
            raise UserError(
                "there is no Ray cluster: start one with `ray start --head`, and on other machines with "
                "`ray start --address=…`"
            ) from None
    return ray
