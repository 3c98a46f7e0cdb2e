"""Every class of transformers that carries models of ours: out, in again, and in from its own random weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from made_models import CARRIED, CONTEXT, EVERY, scrambled
from safetensors.torch import load_file, save_file

from daybreak.data.tokenizer import byte_tokenizer
from daybreak.errors import UserError
from daybreak.exchange.carriers import CARRIERS, carrier_of
from daybreak.exchange.check import compare, load_with_transformers, model_of
from daybreak.exchange.read import read_folder, read_model
from daybreak.exchange.write import write_model
from daybreak.files import read_json, write_json
from daybreak.model.gpt import GPT
from daybreak.sampling.generate import generate, make_row
from daybreak.sampling.settings import SamplingConfig
from tokenizers_of_transformers import bytes_of_transformers

END = 256


def saved(model: Any, folder: Path) -> Path:
    """As transformers saves a model, with a tokenizer of bytes."""
    model.save_pretrained(folder)
    bytes_of_transformers().save_pretrained(folder)
    return folder


def settings_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def change(folder: Path, **settings: Any) -> None:
    (folder / "config.json").write_text(json.dumps(settings_of(folder) | settings))


@pytest.mark.parametrize(("architecture", "settings"), EVERY, ids=lambda value: str(value)[:60])
def test_what_goes_out_computes_the_same_and_comes_in_as_it_was(
    architecture: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    model = scrambled(**settings)
    written = write_model(tmp_path, model, byte_tokenizer())
    assert (written.architecture, written.agreement.lengths) == (architecture, (1, 2, 7, 13, CONTEXT))
    assert written.agreement.difference < 1e-5 < written.agreement.largest
    read = read_folder(tmp_path, "hf:there")
    assert (read.config, read.tokenizer.identity) == (model.config, byte_tokenizer().identity)
    weights = model.state_dict()
    assert read.weights.keys() == weights.keys()
    assert all(torch.allclose(weights[name], tensor, rtol=1e-6) for name, tensor in read.weights.items())
    theirs = load_with_transformers(tmp_path, architecture)
    assert saved_names(theirs, tmp_path / "again") == load_file(tmp_path / "model.safetensors").keys()
    prompt = torch.tensor([[END, 84, 104, 101]])
    made = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False)
    assert made[0, 4:].tolist() == greedy(model, prompt[0].tolist(), 8)


def saved_names(model: Any, folder: Path) -> set[str]:
    """Of the tensors that transformers writes, which is what others read."""
    model.save_pretrained(folder)
    return set(load_file(folder / "model.safetensors"))


def greedy(model: GPT, prompt: list[int], tokens: int) -> list[int]:
    """Ours, until it ends the text; ids that pad the vocabulary are never chosen."""
    chosen: list[int] = []
    sampling = SamplingConfig(greedy=True)
    with torch.no_grad():
        row = make_row(prompt, tokens=tokens, sampling=sampling)
        for ((_, token, _),) in generate(model, [row], vocab_size=END + 1, sampling=sampling):
            chosen.append(token)
            if chosen[-1] == END:
                break
    return chosen


SIZES: dict[str, Any] = {"vocab_size": 264, "bos_token_id": END, "eos_token_id": END, "pad_token_id": END}
DECODER = SIZES | {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_size": 32,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
}
GROUPED = DECODER | {"num_key_value_heads": 2, "head_dim": 8}
ROTARY = {"rope_parameters": {"rope_theta": 500.0, "rope_type": "default", "partial_rotary_factor": 1.0}}
GPT2 = SIZES | {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 24}
FALCON = SIZES | {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "max_position_embeddings": 24}
MPT = SIZES | {"n_layers": 2, "n_heads": 4, "d_model": 32, "max_seq_len": 24}
BLOOM = SIZES | {"n_layer": 2, "n_head": 4, "hidden_size": 32, "seq_length": 24}
THEIRS = [
    ("GPT2", GPT2),
    ("GPT2", GPT2 | {"activation_function": "relu", "n_inner": 40, "tie_word_embeddings": False}),
    ("Llama", GROUPED | {"attention_bias": True, "mlp_bias": True}),
    ("Llama", GROUPED | {"tie_word_embeddings": True, "hidden_act": "gelu"}),
    ("Mistral", GROUPED | {"sliding_window": 5}),
    ("Mistral", GROUPED | {"sliding_window": None}),
    ("Qwen2", GROUPED),
    ("Qwen2", GROUPED | {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    ("Qwen3", GROUPED),
    ("Arcee", GROUPED),
    ("GPTNeoX", DECODER | ROTARY | {"use_parallel_residual": False}),
    ("Starcoder2", GROUPED | {"sliding_window": 5}),
    ("StableLm", GROUPED | ROTARY),
    ("StableLm", GROUPED | ROTARY | {"use_parallel_residual": True}),
    ("Falcon", FALCON),
    ("Falcon", FALCON | {"multi_query": False, "bias": True}),
    ("Falcon", FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1}),
    ("Mpt", MPT),
    ("Bloom", BLOOM),
]


def random_model(name: str, settings: dict[str, Any]) -> Any:
    """One of transformers' own, with weights far from the initial ones, but for norms that ours does not have."""
    torch.manual_seed(0)
    head = "LMHeadModel" if name == "GPT2" else "ForCausalLM"
    model = getattr(transformers, name + head)(getattr(transformers, f"{name}Config")(**settings))
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if not parameter_name.endswith(("q_norm.weight", "k_norm.weight")):
                parameter.add_(0.15 * torch.randn(parameter.shape))
    return model.eval()


@pytest.mark.parametrize(("name", "settings"), THEIRS, ids=lambda value: str(value)[-60:])
def test_a_random_model_of_transformers_comes_in(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    model = random_model(name, settings)
    read = read_folder(saved(model, tmp_path), "hf:there")
    ours = model_of(read.config, read.weights)
    agreement = compare(ours, lambda tokens: model(input_ids=tokens, use_cache=False).logits)
    assert agreement.difference < 1e-5 < agreement.largest
    assert agreement.lengths[-1] == read.config.context == 24


def test_every_class_is_tried_both_ways() -> None:
    assert [carrier.architecture for carrier in CARRIERS] == list(CARRIED)
    tried = {f"{name}LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM" for name, _ in THEIRS}
    assert tried == CARRIED.keys() - {"DaybreakForCausalLM"}


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("GPT2", GPT2 | {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("GPT2", GPT2 | {"activation_function": "quick_gelu"}, "quick_gelu"),
        ("Llama", GROUPED | {"head_dim": 16}, "heads of 16"),
        ("Llama", GROUPED | {"attention_bias": True}, "mlp_bias"),
        ("Llama", GROUPED | {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "linear"),
        ("GPTNeoX", DECODER | {"use_parallel_residual": False}, "share of 0.25"),
        ("GPTNeoX", DECODER | ROTARY, "post_attention_layernorm"),
        ("StableLm", GROUPED | ROTARY | {"use_qkv_bias": True}, "use_qkv_bias"),
        ("Falcon", FALCON | {"alibi": True}, "root of the head size"),
        ("Falcon", FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}, "a norm each"),
        ("Qwen3", GROUPED | {"rms_norm_eps": 1e-5}, "rms_norm_eps"),
        ("Mpt", MPT | {"attn_config": {"clip_qkv": 6.0}}, "clip_qkv"),
        ("Bloom", BLOOM | {"apply_residual_connection_post_layernorm": True}, "post_layernorm"),
        ("Phi", DECODER, "model_type is 'phi'"),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_what_ours_cannot_be_is_refused_with_the_reason(
    name: str, settings: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    saved(random_model(name, settings), tmp_path)
    with pytest.raises(UserError, match=reason):
        read_folder(tmp_path, "hf:there")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"num_key_value_heads": 4}, r"shapes do not fit into its sizes: model\.layers\.0\.self_attn\.q_proj"),
        ({"intermediate_size": 20}, "shapes do not fit"),
        ({"attention_dropout": "none"}, r"config\.json is damaged"),
        ({"daybreak": 3}, r"config\.json is damaged"),
        ({"eos_token_id": []}, r"config\.json is damaged"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_damaged_configuration_is_said(settings: dict[str, Any], reason: str, tmp_path: Path) -> None:
    saved(random_model("Llama", GROUPED), tmp_path)
    write_json(tmp_path / "config.json", read_json(tmp_path / "config.json") | settings)
    with pytest.raises(UserError, match=reason):
        read_folder(tmp_path, "hf:there")


def test_what_transformers_was_trained_on_since_comes_in_as_it_is_now(tmp_path: Path) -> None:
    """Its biases are zero no more, and its table of positions is no sinusoid any more."""
    model = scrambled(bias=False, position={"kind": "sinusoidal"})
    write_model(tmp_path, model, byte_tokenizer())
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1)
    theirs.save_pretrained(tmp_path / "tuned")
    (tmp_path / "tuned/tokenizer.json").write_bytes((tmp_path / "tokenizer.json").read_bytes())
    read = read_folder(tmp_path / "tuned", "hf:there")
    assert (read.config.bias, read.config.position.kind) == (True, "learned")
    agreement = compare(
        model_of(read.config, read.weights), lambda tokens: theirs.eval()(input_ids=tokens, use_cache=False).logits
    )
    assert agreement.difference < 1e-5


def test_the_first_gpt2_of_the_hub_comes_in(tmp_path: Path) -> None:
    """Saved without its head, with the masks of its attention beside the weights."""
    model = random_model("GPT2", GPT2)
    saved(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 24, 24)
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    weights = read_folder(tmp_path, "hf:there").weights
    assert weights["embedding.weight"].equal(model.transformer.wte.weight.bfloat16().float())


def test_a_model_in_several_files_comes_in(tmp_path: Path) -> None:
    model = random_model("GPT2", GPT2)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    bytes_of_transformers().save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert read_folder(tmp_path, "hf:there").weights["embedding.weight"].equal(model.transformer.wte.weight)
    next(tmp_path.glob("model-*.safetensors")).unlink()
    with pytest.raises(UserError, match="is missing"):
        read_folder(tmp_path, "hf:there")


def test_a_pickle_is_named_and_not_opened(tmp_path: Path) -> None:
    saved(random_model("GPT2", GPT2), tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is a pickle"):
        read_folder(tmp_path, "hf:there")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (
            lambda tensors: tensors.pop("transformer.h.1.ln_2.bias"),
            "1 tensors are missing, as transformer.h.1.ln_2.bias",
        ),
        (lambda tensors: tensors.update(more=torch.ones(1)), "1 tensors have no place in it, as more"),
        (lambda tensors: tensors.update({"transformer.ln_f.bias": torch.ones(3)}), "shape"),
        (lambda tensors: tensors.update({"lm_head.weight": torch.ones(264, 32)}), "tie_word_embeddings"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(spoil: Any, reason: str, tmp_path: Path) -> None:
    saved(random_model("GPT2", GPT2), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    spoil(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=reason):
        read_folder(tmp_path, "hf:there")


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path, scrambled(), byte_tokenizer())
    change(tmp_path, daybreak={"format": 2})
    with pytest.raises(UserError, match="format 2 is not known here"):
        read_folder(tmp_path, "hf:there")


def test_logits_that_differ_are_refused_and_it_says_by_how_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tanh form of GELU taken for GELU: the smallest mistake there is to make."""
    saved(random_model("GPT2", GPT2 | {"activation_function": "gelu"}), tmp_path)
    monkeypatch.setattr("daybreak.exchange.gpt2.known_activation", lambda _: "gelu_tanh")
    with pytest.raises(UserError, match=r"GPT2LMHeadModel does not compute .* differ by at most \d\.\de-0[234]"):
        read_model(f"hf:{tmp_path}")


def test_a_setting_that_is_new_fits_no_class_but_ours() -> None:
    """Each part of ours that is none of a class's keeps it from that class."""
    for settings in (
        {"embedding_skip": True},
        {"lookup": {"ngrams": (2,)}},
        {"head": {"soft_cap": 30.0}},
        {"extra_norms": {"over_logits": True}},
        {"attention": {"windows": (4,), "strides": (2,)}},
    ):
        for _, models in list(CARRIED.items())[:-1]:
            carrier, reasons = carrier_of(scrambled(**(models[0] | settings)).config)
            assert carrier.architecture == "DaybreakForCausalLM"
            assert len(reasons) == len(CARRIERS) - 1


def test_falcons_alibi_is_not_ours(tmp_path: Path) -> None:
    """Why GPT* is no Falcon: its ALiBi is divided by the root of the head size."""
    theirs = random_model("Falcon", FALCON | {"alibi": True, "multi_query": False, "bias": True})
    theirs.config.alibi = False
    read = read_folder(saved(theirs, tmp_path), "hf:there")
    theirs.config.alibi = True
    gpt_star = read.config.model_copy(update={"position": scrambled(position={"kind": "alibi"}).config.position})
    logits = compare(model_of(gpt_star, read.weights), lambda tokens: theirs(input_ids=tokens, use_cache=False).logits)
    assert logits.difference > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "heads", "dim"), [(12, 12, 768), (24, 16, 1024), (3, 20, 1280), (2, 25, 1600)], ids=lambda value: value
)
def test_gpt2_of_all_four_sizes_comes_in(layers: int, heads: int, dim: int, tmp_path: Path) -> None:
    """Random weights; the large ones at reduced depth. The whole context, and the check that the command makes."""
    sizes = {"n_layer": layers, "n_head": heads, "n_embd": dim, "n_positions": 1024, "vocab_size": 50_257}
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=END, eos_token_id=END))
    saved(model, tmp_path)
    read = read_model(f"hf:{tmp_path}")
    config = read.config
    assert (config.layers, config.heads, config.dim, config.context) == (layers, heads, dim, 1024)
    assert config.mlp.activation == "gelu_tanh"
