"""Exported folders keep to the rules that vLLM and llama.cpp's converter were read to have (docs/exchange.md)."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from made_models import CARRIED, scrambled
from transformers import AutoTokenizer

from daybreak.data.tokenizer import byte_tokenizer, gpt2_tokenizer
from daybreak.exchange.carriers import CARRIERS
from daybreak.exchange.own_class import OWN
from daybreak.exchange.tokenizer_out import write_tokenizer
from daybreak.exchange.write import write_model

# vllm/model_executor/models/registry.py, and @ModelBase.register in llama.cpp's conversion/.
VLLM = {
    "ArceeForCausalLM", "BloomForCausalLM", "FalconForCausalLM", "GPT2LMHeadModel", "GPTNeoXForCausalLM",
    "LlamaForCausalLM", "MPTForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
    "StableLmForCausalLM", "Starcoder2ForCausalLM",
}  # fmt: skip
LLAMA_CPP = VLLM
# What its converter reads by hparams["…"], without a default.
NEEDED = {
    "gpt2": ("n_layer", "n_ctx", "n_embd", "n_head", "layer_norm_epsilon"),
    "gpt_neox": (
        "max_position_embeddings", "hidden_size", "intermediate_size", "rotary_pct", "num_attention_heads",
        "layer_norm_eps",
    ),
    "mpt": ("n_layers", "max_seq_len", "d_model", "n_heads", "attn_config"),
    "bloom": ("n_layer", "n_head", "hidden_size", "seq_length", "layer_norm_epsilon"),
    "falcon": ("num_hidden_layers", "num_attention_heads", "num_kv_heads", "hidden_size", "layer_norm_epsilon"),
    "llama": ("vocab_size", "num_attention_heads", "num_key_value_heads", "head_dim"),
    "stablelm": ("partial_rotary_factor", "use_parallel_residual", "layer_norm_eps"),
}  # fmt: skip
# By which llama.cpp tells kinds of BPE apart: the SHA-256 of the ids of a text, as Python prints them.
CHECKED_TEXT = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u200d🌫️ (multiple em"
    "ojis concatenated) ✅ 🦙🦙 3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3..."
    "3 កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ ------======= нещо на Български '''''"
    "'```````\"\"\"\"......!!!!!!?????? I've been 'told he's there, 'RE you sure? 'M not sure"
    " I'll make it, 'D you like some tea? We'Ve a'lL"
)
GPT2_HASH = "3ce83efda5659b07b1ad37ca97ca5797ea4285d9b9ab0dc679e4a720c9da7454"


def exported(architecture: str, folder: Path) -> dict[str, Any]:
    write_model(folder, scrambled(**CARRIED[architecture][0]), byte_tokenizer())
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("carrier", [each for each in CARRIERS if each is not OWN], ids=lambda each: each.model_type)
def test_both_know_the_class_and_find_what_they_read(carrier: Any, tmp_path: Path) -> None:
    content = exported(carrier.architecture, tmp_path)
    (architecture,) = content["architectures"]
    assert architecture in VLLM & LLAMA_CPP
    assert [key for key in NEEDED.get(carrier.model_type, ()) if key not in content] == []
    if carrier.model_type == "mpt":
        assert content["attn_config"].keys() >= {"clip_qkv", "alibi", "alibi_bias_max"}
    ids = json.loads((tmp_path / "tokenizer.json").read_text())
    assert max(*ids["model"]["vocab"].values(), *(token["id"] for token in ids["added_tokens"])) < content["vocab_size"]
    assert (tmp_path / "model.safetensors").is_file()


def test_neither_knows_a_class_of_our_own(tmp_path: Path) -> None:
    assert exported("DaybreakForCausalLM", tmp_path)["architectures"] == ["DaybreakForCausalLM"]


@pytest.mark.slow
def test_llama_cpp_knows_gpt2s_tokenizer_by_its_hash(test_data: Path, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, gpt2_tokenizer(), 1024)
    ids = AutoTokenizer.from_pretrained(tmp_path).encode(CHECKED_TEXT)
    assert hashlib.sha256(str(ids).encode()).hexdigest() == GPT2_HASH
