"""A study on a cluster of two nodes, one of whose workers is killed in the middle."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daybreak.data.shards import Corpus
from daybreak.executor import Workers
from daybreak.study.conduct import conduct

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster() -> Iterator[None]:
    """Two Ray nodes on this machine, of one core each."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()
    nodes.shutdown()


def kill_one_worker(trials: Path, killed: list[Path], patience: float = 120.0) -> None:
    """Kill whoever trains, once its run has a checkpoint to go on from."""
    end = time.monotonic() + patience
    while time.monotonic() < end and not killed:
        for checkpoint in trials.glob("*/*/checkpoints/step-*"):
            run = checkpoint.parents[1]
            if not (run / "trial.json").exists():
                os.kill(int((run / ".lock").read_text()), signal.SIGKILL)
                killed.append(run)
                return
        time.sleep(0.01)


def test_a_killed_workers_trial_goes_on_elsewhere_and_nothing_differs(
    write: Callable[..., Path], corpus: Corpus, tmp_path: Path, cluster: None
) -> None:
    file = write(budget='"60k tokens"')
    here = conduct(file, tmp_path / "here", data=corpus.path)
    killed: list[Path] = []
    killer = threading.Thread(target=kill_one_worker, args=(tmp_path / "there" / "trials", killed))
    killer.start()
    there = conduct(file, tmp_path / "there", data=corpus.path, workers=Workers(0, "ray"))
    killer.join()
    (run,) = killed
    assert "going on from step" in (run / "log.txt").read_text()
    assert there.missing == 0
    for variant in here.variants:
        assert there.losses(variant.name) == here.losses(variant.name)
