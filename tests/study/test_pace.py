"""The speed of variants: what cannot be measured is named."""

import pytest

from daybreak.data.shards import Corpus
from daybreak.errors import UserError
from daybreak.recipe import Recipe
from daybreak.study.pace import measure_paces
from made_study import SETTINGS


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.dim=1000000000", "wide: out of memory: .*make it smaller, or leave it out"),
        ("execution.device=meta", "wide: execution.device = 'meta', but this machine has none"),
    ],
)
def test_a_variant_that_cannot_be_made_is_named(override: str, said: str, corpus: Corpus) -> None:
    base = Recipe.load("gpt2-tiny", *SETTINGS, "budget=640 tokens").with_data(corpus.path)
    wide = Recipe.load("gpt2-tiny", *SETTINGS, "budget=640 tokens", override).with_data(corpus.path)
    with pytest.raises(UserError, match=said):
        measure_paces({"base": base, "wide": wide}, note=lambda _: None)
