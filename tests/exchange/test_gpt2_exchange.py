"""GPT-2 out to transformers and in from it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from daybreak.data.tokenizer import byte_tokenizer
from daybreak.exchange.read import read_model
from daybreak.exchange.write import write_model
from small_models import make_gpt
from tokenizers_of_transformers import bytes_of_transformers


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bias": False},
        {"position": {"kind": "sinusoidal", "learned_scale": True}, "mlp": {"activation": "relu2"}, "bias": False},
        {"position": {"kind": "sinusoidal"}, "head": {"tied": False}},
        {"position": {"kind": "none"}, "mlp": {"activation": "silu", "hidden": 24}, "norm": {"eps": 1e-6}},
    ],
)
def test_what_goes_out_comes_in_again(settings: dict[str, Any], tmp_path: Path) -> None:
    model = make_gpt(**settings)
    written = write_model(tmp_path, model, byte_tokenizer())
    assert written.architecture == "GPT2LMHeadModel"
    read = read_model(f"hf:{tmp_path}")
    assert read.tokenizer.identity == byte_tokenizer().identity


def test_a_model_that_transformers_saved(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=257, n_positions=32, n_embd=16, n_layer=2, n_head=2, bos_token_id=256, eos_token_id=256
    )
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    bytes_of_transformers().save_pretrained(tmp_path)
    read = read_model(f"hf:{tmp_path}")
    assert read.config.context == 32
