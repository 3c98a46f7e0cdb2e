"""Models of transformers, measured as ours are: the same weights give the same figures, and a plain loop too."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from daybreak.errors import UserError
from daybreak.evaluate.harness import open_transformers
from daybreak.evaluate.hugging_face import HuggingFaceModel, open_hugging_face
from daybreak.evaluate.sweep import TextLoss, Unmeasured, measure, sweep
from daybreak.evaluate.text import read_text
from daybreak.exchange.check import model_of
from daybreak.exchange.read import read_folder
from gpt2_weights import scramble
from small_models import make_model
from tokenizers_of_transformers import bytes_of_transformers

POSITIONS = 24
TEXT = "Naïve café at daybreak; a text of no round length, which spells <|endoftext|> in the middle."


def save_gpt2(folder: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=16, n_positions=POSITIONS, vocab_size=264, bos_token_id=256, eos_token_id=256
    )
    model = GPT2LMHeadModel(config)
    scramble(model)
    model.save_pretrained(folder)
    bytes_of_transformers().save_pretrained(folder)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model, of bytes."""
    folder = tmp_path_factory.mktemp("gpt2")
    save_gpt2(folder)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "text.txt").write_text(TEXT)
    return str(tmp_path / "text.txt")


def one_by_one(model: HuggingFaceModel, context: int, stride: int) -> float:
    """Bits of the text: each token alone, from the tokens of the first row that reaches it."""
    ids = [256, *(each for sign in TEXT for each in model.tokenizer.encode(sign, add_special_tokens=False))]
    total = 0.0
    for target in range(1, len(ids)):
        start = max(0, -(-(target - context) // stride)) * stride
        with torch.no_grad():
            logits = model.model(torch.tensor([ids[start:target]])).logits[0, -1].double()
        total -= logits.log_softmax(-1)[ids[target]].item() / math.log(2)
    return total


@pytest.mark.parametrize(("context", "stride"), [(POSITIONS, POSITIONS), (7, 7), (20, 3), (6, 1)])
def test_bits_per_byte_are_those_of_each_token_alone_and_of_our_model_with_the_same_weights(
    gpt2: Path, source: str, context: int, stride: int
) -> None:
    theirs = open_hugging_face(f"hf:{gpt2}")
    found = measure(theirs, [read_text(theirs, [source])], context, stride)
    size = len(TEXT.encode())
    assert found.tokens == found.amount.bytes == size
    assert found.bits_per_byte == pytest.approx(one_by_one(theirs, context, stride) / size, rel=1e-5)

    read = read_folder(gpt2, "hf:gpt2")
    ours = make_model(model_of(read.config, read.weights))
    same = measure(ours, [read_text(ours, [source])], context, stride)
    assert (same.tokens, same.amount) == (found.tokens, found.amount)
    assert same.bits_per_byte == pytest.approx(found.bits_per_byte, rel=1e-5)


def test_learned_positions_end(gpt2: Path, source: str) -> None:
    model = open_hugging_face(str(gpt2))
    assert (model.context, model.limit) == (POSITIONS, POSITIONS)
    first, second = sweep(model, [read_text(model, [source])], [8, POSITIONS + 1])
    assert isinstance(first, TextLoss)
    assert second == Unmeasured(POSITIONS + 1, f"its positions end at {POSITIONS}")


def test_rotary_positions_do_not_end_and_another_beginning_is_not_predicted(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "vocab_size": 264}
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 1}
    config = LlamaConfig(**sizes, **heads, max_position_embeddings=16, bos_token_id=256, eos_token_id=257)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    bytes_of_transformers("<s>", "</s>").save_pretrained(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"text": "one text"}\n{"text": "another"}\n')
    model = open_hugging_face(str(tmp_path))
    assert (model.context, model.limit) == (16, None)
    text = read_text(model, [str(tmp_path / "a.jsonl")])
    found = measure(model, [text], 64)
    assert found.tokens == len("one text") + 1 + len("another")
    ids = torch.from_numpy(text.tokens.read(0, len(text.tokens)))
    with torch.no_grad():
        log_p = model.model(ids[None, :-1]).logits[0].double().log_softmax(-1)
    nll = -log_p.gather(1, ids[1:, None])[ids[1:] != 256].sum().item()
    assert found.nll == pytest.approx(nll, rel=1e-6)


def test_safetensors_alone_are_read(tmp_path: Path) -> None:
    save_gpt2(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be read as a causal language model"):
        open_hugging_face(f"hf:{tmp_path}")
    with pytest.raises(UserError, match=r"hf:.* cannot be read: .*model\.safetensors"):
        open_transformers(f"hf:{tmp_path}", device="cpu")


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no model: it has no config\.json"):
        open_hugging_face(f"hf:{tmp_path}")


def test_a_folder_that_is_not_there_is_not_looked_for_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        open_hugging_face(f"hf:{tmp_path / 'missing'}")
