"""DaybreakForCausalLM: any model of ours, by code that travels with it.

Our import reads its `config.json` and its tensors, and never runs that code.
"""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from daybreak.exchange.carrier import Carrier, Settings
from daybreak.exchange.pieces import Constant, MisfitError, Piece, same
from daybreak.files import write_bytes
from daybreak.model.gpt import GPT, ModelConfig

CODE = ("configuration_daybreak.py", "modeling_daybreak.py")


def write_code(folder: Path) -> None:
    """Put the two files beside the model."""
    for name in CODE:
        write_bytes(folder / name, files("daybreak.exchange.own").joinpath(name).read_bytes())


def _describe(config: ModelConfig) -> dict[str, Any]:
    del config  # it stands in `config.json` as it is
    return {
        "auto_map": {
            "AutoConfig": "configuration_daybreak.DaybreakConfig",
            "AutoModelForCausalLM": "modeling_daybreak.DaybreakForCausalLM",
        },
        "use_cache": False,
    }


def _recognise(settings: Settings) -> ModelConfig:
    del settings
    raise MisfitError("it does not say which model of Daybreak's it is")


def _pieces(config: ModelConfig) -> Iterator[Piece | Constant]:
    with torch.device("meta"):
        names = GPT(config).state_dict()
    yield from (same(name, (name,)) for name in names)


OWN = Carrier("daybreak", "DaybreakForCausalLM", _describe, _recognise, _pieces, "", "embedding.weight", "head.weight")
