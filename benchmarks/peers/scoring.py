"""The loss of any model on a whole split: every token but the first once, each row predicted from its own tokens."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_ROWS_AT_ONCE = 32


@torch.no_grad()
def score(logits: Callable[[Tensor], Tensor], data: Path, length: int) -> dict[str, float]:
    """Nats a token and bits a byte on `val.bin`.

    Args:
        logits: of tokens (B, T), as (B, T, V).
        data: a peer's folder.
        length: tokens in a row; the last row may be short.
    """
    tokens = torch.from_numpy(np.fromfile(data / "val.bin", dtype="<u2").astype(np.int64))
    whole = (len(tokens) - 1) // length * length
    inputs_RT, targets_RT = tokens[:whole].view(-1, length), tokens[1 : whole + 1].view(-1, length)
    pieces = list(zip(inputs_RT.split(_ROWS_AT_ONCE), targets_RT.split(_ROWS_AT_ONCE), strict=True))
    if whole < len(tokens) - 1:
        pieces.append((tokens[None, whole:-1], tokens[None, whole + 1 :]))
    nats = math.fsum(
        F.cross_entropy(logits(inputs_BT).float().flatten(0, 1), targets_BT.flatten(), reduction="sum").item()
        for inputs_BT, targets_BT in pieces
    )
    size = json.loads((data / "facts.json").read_text())["bytes"]
    return {"loss": nats / (len(tokens) - 1), "bits_per_byte": nats / (math.log(2) * size)}
