"""Tasks in this process, in others, and on a cluster of two Ray nodes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daybreak.data.clean import Cleaning
from daybreak.data.prepare import prepare
from daybreak.errors import UserError
from daybreak.executor import Engine, Workers, run_tasks
from made_text import write_documents


def doubled(number: int) -> int:
    return 2 * number


def where(number: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def mistaken(number: int) -> int:
    if number == 3:
        raise UserError("the third cannot be done")
    return number


def killed(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def killed_once(path: str) -> str:
    """The machine it is on fails at the first attempt."""
    try:
        Path(path).touch(exist_ok=False)
    except FileExistsError:
        return "done"
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("tasks", [0, 1, 40])
def test_each_task_comes_back_with_its_result(count: int, tasks: int) -> None:
    found = dict(run_tasks(doubled, range(tasks), Workers(count)))
    assert found == {number: 2 * number for number in range(tasks)}


def test_several_processes_share_the_work_and_are_gone_afterwards() -> None:
    processes = {result for _, result in run_tasks(where, range(12), Workers(2))}
    assert len(processes) == 2
    assert os.getpid() not in processes
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.parametrize("count", [1, 2])
def test_a_mistake_comes_back_as_it_is(count: int) -> None:
    with pytest.raises(UserError, match="the third cannot be done"):
        list(run_tasks(mistaken, range(10), Workers(count)))


def test_a_worker_that_is_killed_is_said() -> None:
    with pytest.raises(UserError, match="a worker process was killed"):
        list(run_tasks(killed, range(10), Workers(2)))


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from daybreak.executor import Workers, run_tasks\n"
        "from test_executor import tell\n"
        "if __name__ == '__main__':\n"
        "    list(run_tasks(tell, [sys.argv[1] + '/a', sys.argv[1] + '/b'], Workers(2)))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    folder = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])}
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment)
    files = [tmp_path / "a", tmp_path / "b"]
    _wait_for(lambda: all(file.exists() and file.read_text() for file in files))
    parent.kill()
    parent.wait()
    for file in files:
        process = int(file.read_text())
        _wait_for(lambda process=process: not _lives(process))


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def tell(path: str) -> None:
    """Say which process this is, then work for long."""
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)


def _wait_for(condition: object, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two Ray nodes on this machine."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        folder, before = str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")
        patch.setenv("PYTHONPATH", os.pathsep.join([folder, before]))  # of the workers, which find the tasks here
        yield from _two_nodes()


def _two_nodes() -> Iterator[str]:
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False, logging_level="error")
    yield nodes.address
    ray.shutdown()
    nodes.shutdown()


def node(number: int) -> str:
    import ray

    time.sleep(0.5)
    return str(ray.get_runtime_context().get_node_id())


def test_a_cluster_of_two_nodes_shares_the_work(cluster: str) -> None:
    nodes = {result for _, result in run_tasks(node, range(8), Workers(2, "ray"))}
    assert len(nodes) == 2


def test_on_a_cluster_a_lost_task_is_done_again_and_a_mistake_comes_back(cluster: str, tmp_path: Path) -> None:
    tasks = [str(tmp_path / name) for name in "abc"]
    assert dict(run_tasks(killed_once, tasks, Workers(2, "ray"))) == dict.fromkeys(tasks, "done")
    with pytest.raises(UserError, match="the third cannot be done"):
        list(run_tasks(mistaken, range(10), Workers(2, "ray")))


def test_a_cluster_prepares_the_same_corpus(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_documents(tmp_path, documents=300)
    monkeypatch.setattr("daybreak.data.pipeline._BLOCK_BYTES", 20_000)
    engines: tuple[Engine, ...] = ("here", "ray")
    made = [
        prepare([str(source)], tmp_path / engine, tokenizer="bpe:300", cleaning=Cleaning(mend=True), duplicates="near",
                workers=Workers(2, engine))
        for engine in engines
    ]  # fmt: skip
    one, other = ({path.name: path.read_bytes() for path in corpus.path.iterdir()} for corpus in made)
    assert one == other
