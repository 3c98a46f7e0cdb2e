"""What ranks cannot do is refused by name, before anything is written."""

from pathlib import Path

import pytest

from daybreak import Recipe
from daybreak.distributed import ALONE, ParallelConfig, joined
from daybreak.errors import UserError


def test_eight_bit_moments_are_refused_with_shards_and_the_reason(ranks_recipe: Path) -> None:
    eight_bit = "optimizer={ kind = 'adamw8bit', lr = 1e-3 }"
    with pytest.raises(UserError, match=r"cannot be saved when they are sharded; use parallel\.kind=ddp"):
        Recipe.load(ranks_recipe, "parallel.kind=fsdp", eight_bit)
    assert Recipe.load(ranks_recipe, eight_bit).parallel.kind == "ddp"


def test_replication_across_nodes_is_refused_without_shards(ranks_recipe: Path) -> None:
    with pytest.raises(UserError, match=r"parallel\.replicate = true needs parallel\.kind = fsdp"):
        Recipe.load(ranks_recipe, "parallel.replicate=true")
    assert Recipe.load(ranks_recipe, "parallel.replicate=true", "parallel.kind=fsdp").parallel.replicate


@pytest.mark.parametrize("setting", ["parallel.timeout=0s", "parallel.timeout=5%", "parallel.stall=3steps"])
def test_a_time_that_is_none_is_refused(setting: str, ranks_recipe: Path) -> None:
    with pytest.raises(UserError, match=setting.split("=")[0].replace(".", r"\.")):
        Recipe.load(ranks_recipe, setting)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE = two"),
        ({"WORLD_SIZE": "2"}, "RANK is not in the environment"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_PORT is not in the environment"),
    ],
)
def test_an_environment_that_does_not_describe_ranks_is_refused(
    environment: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=named), joined(ParallelConfig()):
        pass


@pytest.mark.parametrize("count", [None, "1"])
def test_a_process_without_others_is_alone(count: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if count is not None:
        monkeypatch.setenv("WORLD_SIZE", count)
    with joined(ParallelConfig()) as ranks:
        assert ranks is ALONE
        assert ranks.sums([1, 2.5]) == [1.0, 2.5]
        assert ranks.share(lambda: {"a": [1]}) == {"a": [1]}
        assert ranks.any(True)
        assert not ranks.any(False)
