"""N-gram and value embeddings and the embedding's skip, against loops over tokens; what they begin as."""

from typing import Any

import pytest
import torch
from torch import Tensor

from daybreak.model.attention import Attention, AttentionConfig
from daybreak.model.cache import Cache
from daybreak.model.gpt import GPT, ModelConfig, build, count_multiplied, count_parameters
from daybreak.model.lookup import LookupConfig, NgramEmbedding, ValueEmbeddings
from daybreak.model.position import NoPositionConfig
from daybreak.model.skip import EmbeddingSkip

CONTEXT, VOCABULARY = 9, 23
ALL: dict[str, Any] = {"lookup": {"ngrams": (2, 3), "rows": 31, "values": "alternate"}, "embedding_skip": True}


def make_model(**settings: Any) -> GPT:
    sizes: dict[str, Any] = {"layers": 3, "heads": 4, "dim": 16, "context": CONTEXT, "vocab_size": VOCABULARY}
    model = build(
        ModelConfig(**(sizes | {"initialisation": {"std": 0.3}} | settings)), seed=0, device=torch.device("cpu")
    )
    if model.skip is not None:  # so that it matters
        with torch.no_grad():
            model.skip.embedding_scale.fill_(0.5)
    return model


def some_tokens(length: int = CONTEXT, words: int = VOCABULARY) -> Tensor:
    return torch.randint(words, (2, length), generator=torch.Generator().manual_seed(4))


def test_an_ngram_that_has_a_row_of_its_own_is_found_by_its_digits() -> None:
    ngrams = NgramEmbedding((2, 3), rows=1000, vocab_size=4, dim=8)
    ngrams.initialise(0, "ngrams", 1.0)
    tokens, start = some_tokens(6, 4), 4  # four words, and the one in front of the first token
    expected = torch.zeros(2, 6, 8)
    for row in range(2):
        behind = [start, start, *tokens[row].tolist()]
        for at in range(6):
            a, b, c = behind[at : at + 3]
            expected[row, at] += ngrams.tables[0].weight[5 * b + c] + ngrams.tables[1].weight[25 * a + 5 * b + c]
    torch.testing.assert_close(ngrams(tokens), expected)
    assert [table.num_embeddings for table in ngrams.tables] == [25, 125]


def test_a_shared_table_gives_equal_ngrams_equal_rows_and_spreads_others() -> None:
    words, rows = 300, 512
    ngrams = NgramEmbedding((2,), rows=rows, vocab_size=words, dim=8)
    tokens = torch.randint(words, (40, 250), generator=torch.Generator().manual_seed(0))
    behind = torch.cat((torch.full((40, 1), words), tokens), dim=1)
    found = ngrams.rows(behind, 2, 250, rows)
    row_of: dict[tuple[int, int], int] = {}
    for pair, row in zip(
        zip(behind[:, :-1].flatten().tolist(), tokens.flatten().tolist(), strict=True),
        found.flatten().tolist(),
        strict=True,
    ):
        assert row_of.setdefault(pair, row) == row
    counts = torch.tensor(list(row_of.values())).bincount(minlength=rows).float()
    mean = len(row_of) / rows
    assert counts.max() < mean + 6 * mean**0.5  # as balls thrown into bins
    assert counts.min() > max(0.0, mean - 6 * mean**0.5)


@pytest.mark.parametrize("residual", ["sequential", "parallel"])
@pytest.mark.parametrize("kv_heads", [None, 2])
def test_cached_logits_are_the_uncached(residual: str, kv_heads: int | None) -> None:
    model = make_model(**ALL, residual=residual, attention={"kv_heads": kv_heads})
    tokens = some_tokens()
    with torch.no_grad():
        whole, cache = model.logits(tokens), Cache(3, CONTEXT)
        parts = [model.logits(tokens[:, start:end], cache) for start, end in ((0, 4), (4, 5), (5, 6), (6, CONTEXT))]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)


def test_a_token_changes_no_logits_before_it() -> None:
    model, tokens = make_model(**ALL), some_tokens()
    for at in range(CONTEXT):
        other = tokens.clone()
        other[:, at] = (other[:, at] + 1) % VOCABULARY
        changed = (model.logits(other) - model.logits(tokens)).abs().amax(dim=(0, 2)) > 1e-6
        assert changed.tolist() == [False] * at + [True] * (CONTEXT - at)


def gated_attention() -> Attention:
    """Two heads of 4, whose outputs are handed on as they are."""
    none = NoPositionConfig(kind="none")
    attention = Attention(AttentionConfig(), none, layer=0, dim=8, heads=2, bias=False, dropout=0.0, gated_values=True)
    attention.initialise(0, "attention", 0.5, 0.5)
    with torch.no_grad():
        attention.output.weight.copy_(torch.eye(8))
    return attention


def test_values_are_added_times_a_gate_that_begins_at_one() -> None:
    """Attention without its own values is then attention over the embeddings alone."""
    attention = gated_attention()
    x_BTD, extra_BTE = torch.randn(2, 2, 5, 8).unbind()
    with torch.no_grad():
        attention.qkv.weight[16:] = 0.0
        q_BHTK, k_BHTK = (
            part.view(2, 5, 2, 4).transpose(1, 2) for part in (x_BTD @ attention.qkv.weight[:16].T).chunk(2, dim=-1)
        )
        scores = (q_BHTK @ k_BHTK.mT / 2).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
        expected = (scores.softmax(-1) @ extra_BTE.view(2, 5, 2, 4).transpose(1, 2)).transpose(1, 2).flatten(2)
        torch.testing.assert_close(attention(x_BTD, extra_BTE=extra_BTE), expected)


def test_each_head_opens_its_own_gate() -> None:
    attention = gated_attention()
    assert attention.value_gate is not None
    x_BTD, extra_BTE = torch.ones(1, 3, 8), torch.randn(1, 3, 8)
    with torch.no_grad():
        attention.value_gate.weight[0] = -100.0  # shuts the first
        difference = attention(x_BTD, extra_BTE=extra_BTE) - attention(x_BTD)
    assert difference[..., :4].abs().max() < 1e-6
    assert difference[..., 4:].abs().max() > 0.1


def test_the_layers_with_values_count_from_the_last() -> None:
    assert LookupConfig(values="none").value_layers(5) == []
    assert LookupConfig(values="alternate").value_layers(5) == [0, 2, 4]
    assert LookupConfig(values="alternate").value_layers(4) == [1, 3]
    assert LookupConfig(values="all").value_layers(3) == [0, 1, 2]
    values = ValueEmbeddings([1, 3], VOCABULARY, 6)
    torch.nn.init.normal_(values.tables["3"].weight)
    assert values(some_tokens(), 0) is None
    assert torch.equal(values(some_tokens(), 3), values.tables["3"].weight[some_tokens()])


def test_the_skip_begins_as_nothing_and_is_its_formula() -> None:
    skip = EmbeddingSkip(2)
    skip.initialise()
    x, x0 = torch.randn(2, 2, 3, 4).unbind()
    assert torch.equal(skip(x, x0, 1), x)
    with torch.no_grad():
        skip.residual_scale[1], skip.embedding_scale[1] = 0.5, 2.0
    torch.testing.assert_close(skip(x, x0, 1), 0.5 * x + 2.0 * x0)
    assert torch.equal(skip(x, x0, 0), x)


def test_tables_are_parameters_but_not_flops() -> None:
    plain, rich = make_model().config, make_model(**ALL).config
    tables = 2 * 31 * 16 + 2 * VOCABULARY * 16
    gates, scales = 2 * 4 * 16, 2 * 3
    assert count_parameters(rich) - count_parameters(plain) == tables + gates + scales
    assert count_multiplied(rich) - count_multiplied(plain) == gates + scales
    untied = make_model(head={"tied": False}).config
    assert count_multiplied(untied) == count_multiplied(plain)


def test_an_ngram_is_longer_than_a_token() -> None:
    with pytest.raises(ValueError, match=r"model\.lookup\.ngrams"):
        make_model(lookup={"ngrams": (1,)})
