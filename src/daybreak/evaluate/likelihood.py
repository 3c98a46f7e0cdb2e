"""Log-likelihoods of many windows: what they share is computed once, and logits only where they are asked for.

Shape legend: F families, R rows, P prefix, T tokens behind it, N positions whose logits are read, M scored tokens,
D dim, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from daybreak.distributed import ALONE, Ranks
from daybreak.errors import UserError
from daybreak.evaluate.sharing import Family, batches, families
from daybreak.evaluate.windows import Window
from daybreak.hardware import PrecisionName, autocast, is_out_of_memory
from daybreak.model.cache import Cache
from daybreak.model.gpt import GPT

NOT_NUMBERS = "the model's predictions are not numbers (NaN): its training has diverged"
_TOKENS_AT_ONCE = {"cpu": 4096, "cuda": 65_536}
_LOGITS_AT_ONCE = {"cpu": 1 << 23, "cuda": 1 << 28}


@final
@dataclass(frozen=True)
class Score:
    """Of one window.

    Attributes:
        log_likelihood: of all scored tokens together, in nats.
        greedy: each of them is the likeliest, as greedy decoding would choose it.
    """

    log_likelihood: float
    greedy: bool


@torch.no_grad()
def score_windows(
    model: GPT,
    windows: Sequence[Window],
    *,
    precision: PrecisionName = "fp32",
    advance: Callable[[int], None] = lambda _: None,
    ranks: Ranks = ALONE,
) -> list[Score]:
    """The score of each window, in their order; on the model's device.

    Ranks, each of which holds the whole model, share the batches, and each knows all scores.

    Args:
        advance: told how many windows were scored, after each batch of every rank; what it raises ends the work.

    Raises:
        UserError: the model's predictions are not numbers.
    """
    most = _TOKENS_AT_ONCE.get(model.embedding.weight.device.type, _TOKENS_AT_ONCE["cpu"])
    found: dict[int, Score] = {}
    work = list(batches(families(windows, most), most))
    for first in range(0, len(work), ranks.count):
        at_once = work[first : first + ranks.count]
        if ranks.rank < len(at_once):  # behind the last batch there may be none for this one
            found |= _scores(model, at_once[ranks.rank], windows, precision)
        advance(sum(len(row.windows) for batch in at_once for family in batch for row in family.rows))
    if ranks.count == 1:
        return _numbers([found[index] for index in range(len(windows))])
    mine = [found.get(index, Score(0.0, greedy=False)) for index in range(len(windows))]
    values = ranks.sums([value for score in mine for value in (score.log_likelihood, score.greedy)])
    return _numbers([Score(value, greedy > 0) for value, greedy in zip(values[::2], values[1::2], strict=True)])


def _numbers(scores: list[Score]) -> list[Score]:
    """The same, none of which is NaN: of such, no answer would be the likeliest, and the first taken for it."""
    if any(math.isnan(score.log_likelihood) for score in scores):
        raise UserError(NOT_NUMBERS)
    return scores


def _scores(
    model: GPT, batch: Sequence[Family], windows: Sequence[Window], precision: PrecisionName
) -> dict[int, Score]:
    """The scores of a batch's windows; one that does not fit into memory is halved until it does."""
    try:
        with autocast(model.embedding.weight.device, precision):
            return _scores_at_once(model, batch, windows)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or sum(len(family.rows) for family in batch) == 1:
            raise
    middle = len(batch) // 2
    halves = (batch[:middle], batch[middle:]) if middle else [[half] for half in batch[0].halves()]
    return {index: score for half in halves for index, score in _scores(model, half, windows, precision).items()}


def _scores_at_once(model: GPT, batch: Sequence[Family], windows: Sequence[Window]) -> dict[int, Score]:
    P = min(family.shared for family in batch)
    prefixes = [family.rows[0].inputs[:P] for family in batch]
    rests = [row.inputs[P:] for family in batch for row in family.rows]
    T = max(len(rest) for rest in rests)
    device, cache, features = model.embedding.weight.device, None, []
    if P:
        cache = Cache(model.config.layers, P)
        features.append(model.features(_padded(prefixes, device), cache=cache))
    if T:
        if cache is not None:
            counts = torch.tensor([len(family.rows) for family in batch], device=device)
            cache = cache.repeated(counts, P + T)
        features.append(model.features(_padded(rests, device), cache=cache))
    read = _positions(batch, windows, P, T)
    positions = torch.tensor(read.positions, device=device)
    features_ND = torch.cat([each.flatten(0, 1) for each in features])[positions]
    log_p, likeliest = _read(model, features_ND, read)
    scores, start = {}, 0
    for index in (index for family in batch for row in family.rows for index in row.windows):
        end = start + windows[index].scored
        scores[index] = Score(math.fsum(log_p[start:end]), all(likeliest[start:end]))
        start = end
    return scores


@final
@dataclass(frozen=True)
class _Positions:
    """Where a batch is scored.

    Attributes:
        positions: whose logits are read, each once (N), counted through all prefixes and then all that is behind them.
        reader: which of these predicts each scored token, (M).
        targets: the scored tokens, (M), window by window.
    """

    positions: Sequence[int]
    reader: Sequence[int]
    targets: Sequence[int]


def _positions(batch: Sequence[Family], windows: Sequence[Window], P: int, T: int) -> _Positions:
    known: dict[int, int] = {}
    reader, targets = list[int](), list[int]()
    row_number = 0
    for number, family in enumerate(batch):
        for row in family.rows:
            in_prefix, behind = number * P, len(batch) * P + row_number * T - P
            for window in (windows[index] for index in row.windows):
                targets += window.tokens[-window.scored :]
                for place in range(window.first_scored, len(row.inputs)):
                    position = place + (in_prefix if place < P else behind)
                    reader.append(known.setdefault(position, len(known)))
            row_number += 1
    return _Positions(list(known), reader, targets)


def _read(model: GPT, features_ND: Tensor, read: _Positions) -> tuple[list[float], list[bool]]:
    """log p of each scored token (M), and whether it is the likeliest, without ever holding all logits."""
    device = features_ND.device
    at_once = max(1, _LOGITS_AT_ONCE.get(device.type, _LOGITS_AT_ONCE["cpu"]) // model.config.vocab_size)
    reader_M, targets_M = torch.tensor([read.reader, read.targets], device=device)
    order_M = reader_M.argsort(stable=True)
    starts = torch.searchsorted(reader_M[order_M], torch.arange(0, len(features_ND) + at_once, at_once, device=device))
    log_p_M = torch.empty(len(reader_M), device=device)
    likeliest_M = torch.empty(len(reader_M), dtype=torch.bool, device=device)
    chunks = zip(torch.split(features_ND, at_once), torch.split(order_M, starts.diff().tolist()), strict=True)
    for number, (chunk_ND, readers) in enumerate(chunks):
        logits_NV = model.head(chunk_ND, model.embedding.weight)
        rows, targets = reader_M[readers] - number * at_once, targets_M[readers]
        log_p_M[readers] = logits_NV[rows, targets] - logits_NV.logsumexp(-1)[rows]
        likeliest_M[readers] = logits_NV.argmax(-1)[rows] == targets
    return log_p_M.tolist(), likeliest_M.tolist()


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Token ids (rows, longest), filled up on the right, where nothing looks."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *(0,) * (longest - len(row))] for row in rows], device=device)
