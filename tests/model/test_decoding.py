"""A model laid out for sampling predicts the same, in the layout asked for, and copies nothing else."""

from typing import Any

import pytest
import torch

from daybreak.model.cache import Cache
from daybreak.model.decoding import laid_out_for_one_row
from daybreak.model.gpt import GPT, ModelConfig, build


def make_model(**settings: Any) -> GPT:
    sizes: dict[str, Any] = {"layers": 2, "heads": 2, "dim": 16, "context": 12, "vocab_size": 37}
    return build(ModelConfig(**(sizes | {"initialisation": {"std": 0.3}} | settings)), 0, torch.device("cpu"))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"head": {"tied": False}, "position": {"kind": "rotary"}},
        {"position": {"kind": "sinusoidal", "learned_scale": True}, "extra_norms": {"over_logits": True}},
        {"residual": "parallel", "mlp": {"kind": "glu", "hidden": 24}, "position": {"kind": "alibi"}},
    ],
)
def test_it_predicts_the_same_with_and_without_a_cache(settings: dict[str, Any]) -> None:
    model = make_model(**settings)
    laid_out = laid_out_for_one_row(model)
    tokens = torch.randint(37, (1, 10), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model.logits(tokens)
        torch.testing.assert_close(laid_out.logits(tokens), expected, rtol=1e-5, atol=1e-5)
        cache = Cache(2, 12)
        by_one = [laid_out.next_logits(tokens[:, i : i + 1], cache) for i in range(10)]
    torch.testing.assert_close(torch.stack(by_one, dim=1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_matrices_with_more_outputs_than_inputs_lie_by_columns_and_the_rest_is_shared(tied: bool) -> None:
    model = make_model(head={"tied": tied})
    laid_out = dict(laid_out_for_one_row(model).named_parameters())
    by_columns = {name for name, weight in laid_out.items() if not weight.is_contiguous()}
    wide = {f"blocks.{layer}.{part}.weight" for layer in (0, 1) for part in ("attention.qkv", "mlp.up")}
    assert by_columns == wide | {"embedding.weight" if tied else "head.weight"}
    for name, weight in model.named_parameters():
        assert (laid_out[name].data_ptr() == weight.data_ptr()) == (name not in by_columns)
        assert laid_out[name].shape == weight.shape
        assert weight.is_contiguous()
        assert weight.requires_grad
