"""The safetensors files of a folder, in one file or in several with an index; nothing is unpickled."""

from pathlib import Path

from torch import Tensor

from daybreak.errors import UserError
from daybreak.files import let_read, read_json

_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a model, by its name.

    Raises:
        UserError: there is no such file, or one is damaged or missing.
    """
    tensors: dict[str, Tensor] = {}
    for file in _files(folder):
        tensors |= _read(file)
    return tensors


def write_tensors(folder: Path, tensors: dict[str, Tensor]) -> None:
    """As transformers writes them."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, folder / _WHOLE, metadata={"format": "pt"})
        let_read(folder / _WHOLE)
    except SafetensorError as error:  # how it reports a full disk
        raise UserError(f"{folder / _WHOLE} could not be written: {error}") from None


def _files(folder: Path) -> list[Path]:
    if (folder / _WHOLE).is_file():
        return [folder / _WHOLE]
    if not (folder / _INDEX).is_file():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        instead = f"; {pickled[0]} is a pickle, which is not opened here: save it with safetensors" if pickled else ""
        raise UserError(f"{folder} has no {_WHOLE}{instead}")
    names = read_json(folder / _INDEX).get("weight_map")
    if not isinstance(names, dict) or not all(
        isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors") for name in names.values()
    ):
        raise UserError(
            f"{folder / _INDEX} is damaged: its weight_map names other things than safetensors files beside it"
        )
    return [folder / name for name in sorted(set(names.values()))]


def _read(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(file))
    except FileNotFoundError:
        raise UserError(f"{file} is missing") from None
    except SafetensorError as error:
        raise UserError(f"{file} is not a safetensors file: {error}") from None
