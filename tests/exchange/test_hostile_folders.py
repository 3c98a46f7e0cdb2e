"""Folders that somebody else made: whatever stands in them, a reason is said, and nobody's code runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from made_models import scrambled
from safetensors.torch import load_file, save_file

from daybreak.data.tokenizer import byte_tokenizer
from daybreak.errors import UserError
from daybreak.evaluate.hugging_face import open_hugging_face
from daybreak.exchange.read import read_model
from daybreak.exchange.write import write_model

LLAMA = {"position": {"kind": "rotary"}, "norm": {"kind": "rmsnorm"}, "mlp": {"kind": "glu", "hidden": 48}}


def change(folder: Path, **settings: Any) -> None:
    """Of `config.json`; what is `...` is left out, and so is what we say of our own model."""
    content = {**json.loads((folder / "config.json").read_text())}
    content = {key: value for key, value in {**content, "daybreak": ..., **settings}.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    "settings",
    [
        {"n_head": True},
        {"n_inner": []},
        {"layer_norm_epsilon": 10**30},
        {"n_embd": 2_000_000_000, "n_inner": None},
        {"eos_token_id": []},
        {"resid_pdrop": "x"},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"dtype": "junk"},
        {"use_cache": "x"},
        {"bos_token_id": "x"},
        {"layer_types": ["x"]},
        {"return_dict": False},
        {"attribute_map": {"n_layer": "x"}},
        {"daybreak": "x"},
        {"daybreak": [1]},
        {"daybreak": {"format": 1, "tokenizer": 3}},
    ],
    ids=str,
)
def test_settings_of_gpt2_that_make_no_sense_are_a_message(settings: dict[str, Any], tmp_path: Path) -> None:
    write_model(tmp_path, scrambled(), byte_tokenizer())
    change(tmp_path, **settings)
    with pytest.raises((UserError, MemoryError, RuntimeError)) as caught:
        read_model(f"hf:{tmp_path}")
    assert isinstance(caught.value, UserError) or "overflowed" in str(caught.value)  # which the command line words


@pytest.mark.parametrize(
    "settings",
    [
        {"num_key_value_heads": 0},
        {"num_key_value_heads": 1},
        {"head_dim": 0},
        {"intermediate_size": True},
        {"rope_parameters": "x"},
        {"rope_scaling": 1.5},
        {"rope_parameters": {"rope_type": "default", "rope_theta": "x"}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10**400}},
    ],
    ids=lambda value: str(value)[:60],
)
def test_settings_of_llama_that_make_no_sense_are_a_message(settings: dict[str, Any], tmp_path: Path) -> None:
    write_model(tmp_path, scrambled(**LLAMA), byte_tokenizer())
    change(tmp_path, **settings)
    with pytest.raises(UserError):
        read_model(f"hf:{tmp_path}")


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_kernel_that_the_settings_name_is_not_fetched(key: str, tmp_path: Path) -> None:
    """transformers would load it from the hub and run it; without the package that does so it fails."""
    write_model(tmp_path, scrambled(), byte_tokenizer())
    change(tmp_path, **{key: "kernels-community/flash-attn"})
    assert read_model(f"hf:{tmp_path}").architecture == "GPT2LMHeadModel"
    assert open_hugging_face(str(tmp_path)).limit == scrambled().config.context


@pytest.mark.parametrize(
    ("key", "value"), [("version", None), ("truncation", 0), ("post_processor", {"type": "x"}), ("decoder", [])]
)
def test_a_tokenizer_that_is_none_is_said(key: str, value: Any, tmp_path: Path) -> None:
    write_model(tmp_path, scrambled(), byte_tokenizer())
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps({**content, key: value}))
    with pytest.raises(UserError, match=r"tokenizer\.json is damaged"):
        read_model(f"hf:{tmp_path}")


@pytest.mark.parametrize("name", ["", ".", "..", "../model.safetensors", "pytorch_model.bin", 3])
def test_an_index_names_safetensors_beside_it_and_nothing_else(name: Any, tmp_path: Path) -> None:
    write_model(tmp_path, scrambled(), byte_tokenizer())
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(UserError, match="weight_map"):
        read_model(f"hf:{tmp_path}")


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    write_model(tmp_path, scrambled(**LLAMA), byte_tokenizer())
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {"model.layers.0.self_attn.q_proj.weight": torch.zeros(47, 32)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"q_proj\.weight \(47, 32\)"):
        read_model(f"hf:{tmp_path}")
