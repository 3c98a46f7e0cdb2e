"""The layout in memory that a CPU multiplies one row with fastest."""

import torch
from torch import Tensor, nn

from daybreak.model.gpt import GPT


def laid_out_for_one_row(model: GPT) -> GPT:
    """The same model to sample from on a CPU, one position at a time; it shares what it does not lay out anew.

    A product with one row is bound by reading the matrix, and BLAS reads the longer side at full speed only where
    that side is contiguous: a matrix with more outputs than inputs is stored by columns.
    """
    head = "embedding.weight" if model.head.weight is None else "head.weight"
    matrices = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Linear)} | {head}
    with torch.device("meta"):
        laid_out = GPT(model.config, model.kernels)
    weights = {
        name: _by_columns(weight) if name in matrices and weight.shape[0] > weight.shape[1] else weight
        for name, weight in model.state_dict().items()
    }
    laid_out.load_state_dict(weights, assign=True)
    return laid_out.requires_grad_(False)


def _by_columns(weight_NK: Tensor) -> Tensor:
    return weight_NK.T.contiguous().T
