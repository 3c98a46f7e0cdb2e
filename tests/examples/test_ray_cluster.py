"""The description of a Ray cluster is one that Ray takes, and what it says to type can be typed."""

import re
import shlex
from pathlib import Path

import typer.main
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from daybreak.cli import app

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "examples" / "ray" / "cluster.yaml"


def test_ray_takes_it() -> None:
    prepared = prepare_config(yaml.safe_load(CLUSTER.read_text()))
    validate_config(prepared)
    assert prepared["max_workers"] == len(prepared["provider"]["worker_ips"])


def test_torch_is_the_build_that_everything_is_tried_with() -> None:
    pinned = re.search(r"^torch==\S+$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert pinned is not None
    assert any(each.endswith(f" {pinned[0]}") for each in yaml.safe_load(CLUSTER.read_text())["setup_commands"])


def test_its_command_is_one_of_ours() -> None:
    comment = " ".join(line.lstrip("# ") for line in CLUSTER.read_text().splitlines() if line.startswith("#"))
    typed = re.search(r"ray exec (\S+) '(.*?)'", comment.replace("\\", ""))
    assert typed is not None
    assert ROOT / typed[1] == CLUSTER
    program, verb, *words = shlex.split(typed[2])
    assert program.endswith("/bin/daybreak")
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    parsed = commands[verb].make_context(verb, words).params
    assert (parsed["engine"], parsed["workers"], parsed["gpus"]) == ("ray", 0, 1.0)
