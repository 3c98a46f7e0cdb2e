"""From features to logits and to the loss, without ever holding all logits if asked.

Shape legend: N rows (batch x time), C rows of a chunk, D dim, V vocabulary.
"""

from collections.abc import Callable
from typing import Any, final

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from daybreak.configuration import Configuration
from daybreak.data.windows import IGNORED
from daybreak.model.initialise import normal_
from daybreak.model.norm import Norm

# Of logits (C, V), targets (C, 1) and a soft cap: log p of each target, (C, 1), and the gradient of -log p, (C, V).
SoftmaxGradient = Callable[[Tensor, Tensor, float | None], tuple[Tensor, Tensor]]

_SOFTMAX_ROWS_ON_CPU = 128


@final
class HeadConfig(Configuration):
    """How features become logits.

    Attributes:
        tied: the embedding's weight is the head's.
        soft_cap: c gives c · tanh(logits / c) (Gemma Team 2024, section 2).
    """

    tied: bool = True
    soft_cap: float | None = Field(default=None, ge=0.1, le=1e4)


@final
class Head(nn.Module):
    """Logits over the vocabulary, and their cross-entropy. A tied weight is passed in, not held.

    Args:
        norm: over the logits, if there is one.
        loss_rows: rows whose logits the loss holds at once; 0 holds all. The value is the same.

    Attributes:
        softmax_gradient: how the chunked loss gets from logits to their gradient; a compiled one may take its place.
    """

    def __init__(self, config: HeadConfig, dim: int, vocab_size: int, norm: Norm | None, loss_rows: int = 0) -> None:
        super().__init__()
        self.weight = None if config.tied else nn.Parameter(torch.empty(vocab_size, dim))
        self.norm, self.soft_cap, self.loss_rows = norm, config.soft_cap, loss_rows
        self.softmax_gradient: SoftmaxGradient = softmax_gradient

    @torch.no_grad()
    def initialise(self, seed: int, name: str, std: float) -> None:
        if self.weight is not None:
            normal_(self.weight, std, seed=seed, name=f"{name}.weight")
        if self.norm is not None:
            self.norm.initialise()

    def forward(self, x_ND: Tensor, embedding_VD: Tensor) -> Tensor:
        """Logits (..., V) in fp32 of features (..., D)."""
        logits_NV = F.linear(x_ND, embedding_VD if self.weight is None else self.weight)
        if self.norm is not None:
            logits_NV = self.norm(logits_NV)
        logits_NV = logits_NV.float()
        return logits_NV if self.soft_cap is None else self.soft_cap * torch.tanh(logits_NV / self.soft_cap)

    def loss(self, x_ND: Tensor, embedding_VD: Tensor, targets_N: Tensor) -> Tensor:
        """Sum over rows of -log p(target), in nats; rows whose target is IGNORED count nothing."""
        if self.loss_rows == 0:
            return cross_entropy_sum(self(x_ND, embedding_VD), targets_N)
        if not torch.is_grad_enabled():
            chunks = zip(torch.split(x_ND, self.loss_rows), torch.split(targets_N, self.loss_rows), strict=True)
            return torch.stack([cross_entropy_sum(self(x, embedding_VD), targets) for x, targets in chunks]).sum()
        if self.norm is None:
            weight_VD = embedding_VD if self.weight is None else self.weight
            fused: Tensor = _ChunkedLinearLoss.apply(  # type: ignore[no-untyped-call]
                x_ND, weight_VD, targets_N, self.soft_cap, self.loss_rows, self.softmax_gradient
            )
            return fused
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if self.weight is None and embedding_VD.requires_grad:
            parameters.append(embedding_VD)  # type: ignore[arg-type]
        total: Tensor = _ChunkedLoss.apply(self, x_ND, targets_N, embedding_VD, *parameters)  # type: ignore[no-untyped-call]
        return total

    def losses(self, x_ND: Tensor, embedding_VD: Tensor, targets_N: Tensor) -> Tensor:
        """Each row's -log p(target) in nats, (N,), without gradient."""
        rows = self.loss_rows or len(x_ND)
        # Not under no_grad: autocast would keep a cast of the weight that passes no gradient on to the loss behind.
        chunks = (
            F.cross_entropy(self(x, embedding_VD).detach(), targets, ignore_index=IGNORED, reduction="none")
            for x, targets in zip(torch.split(x_ND.detach(), rows), torch.split(targets_N, rows), strict=True)
        )
        return torch.cat(list(chunks))


def cross_entropy_sum(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    return F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORED, reduction="sum")


def softmax_gradient(logits_CV: Tensor, target_C1: Tensor, soft_cap: float | None) -> tuple[Tensor, Tensor]:
    """As `SoftmaxGradient`, in fp32; kernel by kernel, in as little memory as that takes.

    With p the softmax, the gradient is p - 1 at the target and p elsewhere, times 1 - (z / c)^2 behind a soft cap of c.
    """
    scores_CV, slope_CV = logits_CV, None
    if soft_cap is not None:
        capped_CV = torch.tanh(logits_CV.float() / soft_cap)
        scores_CV, slope_CV = soft_cap * capped_CV, 1 - capped_CV.square()
    log_p_CV = scores_CV.log_softmax(-1, dtype=torch.float32)
    log_p_C1 = log_p_CV.gather(1, target_C1)
    gradient_CV = log_p_CV.exp_().scatter_add_(1, target_C1, -torch.ones_like(target_C1, dtype=torch.float32))
    return log_p_C1, gradient_CV if slope_CV is None else gradient_CV * slope_CV


def softmax_gradient_to_compile(logits_CV: Tensor, target_C1: Tensor, soft_cap: float | None) -> tuple[Tensor, Tensor]:
    """The same in the type of the logits, written so that a compiler reads them twice and writes the gradient once."""
    scores_CV = logits_CV.float()
    if soft_cap is not None:
        scores_CV = soft_cap * torch.tanh(scores_CV / soft_cap)
    log_sum_C1 = scores_CV.logsumexp(-1, keepdim=True)
    at_target_CV = torch.arange(logits_CV.shape[1], device=logits_CV.device) == target_C1
    gradient_CV = (scores_CV - log_sum_C1).exp() - at_target_CV.float()
    if soft_cap is not None:
        gradient_CV = gradient_CV * (1 - (scores_CV / soft_cap).square())
    return scores_CV.gather(1, target_C1) - log_sum_C1, gradient_CV.to(logits_CV.dtype)


@final
class _ChunkedLinearLoss(torch.autograd.Function):
    """The loss of a head that is one matrix, by chunks of rows; gradients are computed in the forward pass.

    Nothing is computed twice. Of a chunk the gradient of the logits is held, in the type of the products; on a CPU
    softmaxes are made of fewer rows at a time, so that they stay in its cache.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_ND: Tensor,
        weight_VD: Tensor,
        targets_N: Tensor,
        soft_cap: float | None,
        rows: int,
        softmax: SoftmaxGradient,
    ) -> Tensor:
        device = x_ND.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_ND.dtype
        low_ND, low_VD = x_ND.to(dtype), weight_VD.to(dtype)
        counted_N1 = (targets_N != IGNORED)[:, None]
        index_N1 = targets_N[:, None].clamp(min=0)
        total = x_ND.new_zeros((), dtype=torch.float32)
        x_grad_ND = torch.empty_like(x_ND)
        weight_grad_VD = torch.zeros_like(weight_VD) if ctx.needs_input_grad[1] else None  # None of one that is frozen
        for start in range(0, len(x_ND), rows):
            chunk_CD, index_C1 = low_ND[start : start + rows], index_N1[start : start + rows]
            counted_C1 = counted_N1[start : start + rows]
            if device == "cpu":
                log_p_C1, grad_CV = _by_few_rows(chunk_CD, low_VD, index_C1, soft_cap, softmax)
            else:
                log_p_C1, grad_CV = softmax(chunk_CD @ low_VD.T, index_C1, soft_cap)
            total -= (log_p_C1 * counted_C1).sum()
            grad_CV = grad_CV.to(dtype)
            # Rows that do not count: their softmax is no gradient.
            x_grad_ND[start : start + rows] = (grad_CV @ low_VD) * counted_C1
            if weight_grad_VD is not None:
                weight_grad_VD += grad_CV.T @ (chunk_CD * counted_C1)
        ctx.save_for_backward(x_grad_ND, weight_grad_VD)
        return total

    @staticmethod
    def backward(ctx: Any, *output_grads: Tensor) -> tuple[Tensor | None, ...]:
        x_grad_ND, weight_grad_VD = ctx.saved_tensors
        weight_grad = None if weight_grad_VD is None else weight_grad_VD * output_grads[0]
        return x_grad_ND * output_grads[0], weight_grad, None, None, None, None


def _by_few_rows(
    chunk_CD: Tensor, weight_VD: Tensor, target_C1: Tensor, soft_cap: float | None, softmax: SoftmaxGradient
) -> tuple[Tensor, Tensor]:
    """The softmax's gradient of a chunk of features, made of rows that a CPU's cache holds."""
    log_p_C1 = chunk_CD.new_empty(len(chunk_CD), 1, dtype=torch.float32)
    grad_CV = chunk_CD.new_empty(len(chunk_CD), len(weight_VD))
    for start in range(0, len(chunk_CD), _SOFTMAX_ROWS_ON_CPU):
        few = slice(start, start + _SOFTMAX_ROWS_ON_CPU)
        log_p_C1[few], grad_CV[few] = softmax(chunk_CD[few] @ weight_VD.T, target_C1[few], soft_cap)
    return log_p_C1, grad_CV


@final
class _ChunkedLoss(torch.autograd.Function):
    """The loss of any head by chunks of rows; gradients are computed with each chunk, in the forward pass.

    No logits are kept or computed twice: the memory is one chunk's logits and one gradient of each input.
    """

    @staticmethod
    def forward(
        ctx: Any, head: Head, x_ND: Tensor, targets_N: Tensor, embedding_VD: Tensor, *parameters: Tensor
    ) -> Tensor:
        total = x_ND.new_zeros((), dtype=torch.float32)
        x_grad = torch.empty_like(x_ND)
        parameter_grads = [torch.zeros_like(parameter) for parameter in parameters]
        for start in range(0, len(x_ND), head.loss_rows):
            rows = slice(start, start + head.loss_rows)
            with torch.enable_grad():
                x_chunk = x_ND[rows].detach().requires_grad_()
                loss = cross_entropy_sum(head(x_chunk, embedding_VD), targets_N[rows])
            x_grad[rows], *grads = torch.autograd.grad(loss, [x_chunk, *parameters])
            torch._foreach_add_(parameter_grads, grads)
            total += loss.detach()
        ctx.save_for_backward(x_grad, *parameter_grads)
        return total

    @staticmethod
    def backward(ctx: Any, *output_grads: Tensor) -> tuple[Tensor | None, ...]:
        x_grad, *parameter_grads = ctx.saved_tensors
        scale = output_grads[0]
        return (None, x_grad * scale, None, None, *(grad * scale for grad in parameter_grads))
