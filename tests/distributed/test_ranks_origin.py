"""Two ranks begin from a trained model, with parts of it frozen, as one does; under DDP and FSDP2."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rank_processes import FSDP, Launcher, RanksRun, Sitting
from safetensors.torch import load_file

from daybreak.run import Run

SETTINGS = ("freeze=embedding,blocks.0", "early_stop.patience=4", "optimizer.lr=3e-3", "seed=8", "model.dropout=0")


@pytest.mark.parametrize("sharing", ["ddp", "fsdp"])
def test_two_ranks_go_on_from_the_weights_of_one(
    launcher: Launcher, alone: Callable[..., Run], tmp_path: Path, sharing: str
) -> None:
    source = alone()
    settings = (f"init={source.path}", *SETTINGS)
    one = alone(*settings)
    parallel = (FSDP,) if sharing == "fsdp" else ()
    with launcher.started(Sitting(2, (*settings, *parallel)), tmp_path / "ranks", tmp_path / "run") as ranks:
        assert [rank.code for rank in ranks] == [0, 0], ranks[0].errors
    run = RanksRun(tmp_path / "run", (tuple(ranks),))
    assert run.column("loss") == pytest.approx([record["loss"] for record in one.metrics()], rel=1e-5)
    before, after = source.checkpoint.weights(), load_file(run.checkpoint / "model.safetensors")
    ours = one.checkpoint.weights()
    for name in before:
        frozen = name.startswith(("embedding.", "blocks.0."))
        assert torch.equal(before[name], after[name]) == frozen, name
        torch.testing.assert_close(after[name], ours[name], rtol=0, atol=1e-4)
    moments = load_file(run.checkpoint / "optimizer.safetensors")
    assert not any(name.startswith(("embedding.", "blocks.0.")) for name in moments)
