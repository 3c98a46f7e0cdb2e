"""The loss to expect of a recipe, where the fitted law speaks of such models."""

from dataclasses import dataclass
from typing import final

from daybreak.data.shards import Corpus
from daybreak.family import is_like_a_member
from daybreak.recipe import Recipe
from daybreak.scaling import LossLaw, loss_of_repeats, n_of


@final
@dataclass(frozen=True)
class Expectation:
    """A validation loss in nats a token, and half the width of its 95 % band."""

    loss: float
    band: float


OTHER_TEXT = 0.1  # share of the loss by which texts and tokenizers differ at equal bits a byte


def expected_loss(recipe: Recipe, tokens: float, corpus: Corpus) -> Expectation | None:
    """After so many tokens of a corpus; None for models that the law was not fitted to, and for what began trained."""
    if recipe.init is not None:
        return None
    members = (each.model_dump(mode="json") for each in (recipe, Recipe.load("daybreak-small")))
    return by_law(recipe, tokens, corpus) if tokens > 0 and is_like_a_member(*members) else None


def by_law(recipe: Recipe, tokens: float, corpus: Corpus) -> Expectation:
    """What the law says of a model's size, of whatever kind it is.

    On another text the same bits a byte are expected as on that of the fit, at the bytes a token that it has.
    """
    law, train = LossLaw.fitted(), corpus.train
    per_token = train.bytes / train.tokens / law.bytes_per_token
    n = n_of(recipe.model, recipe.row_length)
    loss = per_token * loss_of_repeats(law, n, tokens, train.tokens)
    band = per_token * law.band(n, tokens)
    # Who prepares another text has another tokenizer, unless it is given on purpose.
    return Expectation(loss, band if corpus.tokenizer.identity == law.tokenizer else band + OTHER_TEXT * loss)
