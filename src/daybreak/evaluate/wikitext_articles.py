"""WikiText as the harness's task of that name reads it: by article, without the marks of its tokenization."""

from pathlib import Path

import numpy as np
from lm_eval.tasks.wikitext.preprocess_wikitext import process_results, wikitext_detokenizer

from daybreak.data.shards import TokenStream
from daybreak.evaluate.language_model import LanguageModel
from daybreak.evaluate.local_rows import read_rows
from daybreak.evaluate.text import Amount, Text


def read_articles(model: LanguageModel, file: Path) -> list[Text]:
    """The articles of a file that `--local wikitext=FILE` takes, each of which begins anew.

    Words and bytes are those of the article as it stands in the file, though what is predicted is its text without
    those marks: the harness's own rule, which the published perplexities by word follow.

    Raises:
        UserError: the file cannot be read.
    """
    return [_article(model, row["page"]) for row in read_rows(file)]


def _article(model: LanguageModel, page: str) -> Text:
    counted = process_results({"page": page}, [0.0])
    (_, words), (_, size) = counted["word_perplexity"], counted["bits_per_byte"]
    ids = np.asarray([model.begin, *model.encode(wikitext_detokenizer({"page": page}))], dtype=np.uint32)
    return Text(TokenStream([ids]), None, Amount(1, size, len(page), words))
