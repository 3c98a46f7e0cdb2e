"""Every recipe that ships goes out to transformers and comes in again, with equal logits; the docs say as what."""

from pathlib import Path

import pytest
from carrier_table import PAGE, page

from daybreak.data.tokenizer import byte_tokenizer
from daybreak.exchange.check import compare, model_of
from daybreak.exchange.read import read_folder
from daybreak.exchange.write import write_model
from daybreak.model.gpt import ModelConfig, build
from daybreak.recipe import Recipe, recipe_names
from gpt2_weights import scramble
from small_models import CPU


def small(model: ModelConfig) -> ModelConfig:
    """The same parts in another size: what they are decides who carries them."""
    content = model.model_dump(mode="json")
    content |= {"layers": 2, "dim": 8 * model.heads, "context": 32, "vocab_size": 320}
    content["mlp"]["hidden"] = content["mlp"]["hidden"] and 24
    content["lookup"]["rows"] = 500
    return ModelConfig.model_validate(content)


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_goes_out_and_comes_in_with_equal_logits(name: str, tmp_path: Path) -> None:
    model = build(small(Recipe.load(name).model), 0, CPU)
    scramble(model)
    written = write_model(tmp_path, model, byte_tokenizer())
    assert written.agreement.difference < 1e-4
    read = read_folder(tmp_path, "hf:there")
    assert read.config == model.config
    assert compare(model, model_of(read.config, read.weights).logits).difference == 0.0
    assert f"| `{name}` | `{written.architecture}` |" in PAGE.read_text()


def test_the_page_has_the_table_as_it_is() -> None:
    text = PAGE.read_text()
    assert page(text) == text, "python tests/exchange/carrier_table.py --write"
