"""The loss by chunks is the loss, and holds only a chunk's logits."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from daybreak.data.windows import IGNORED
from daybreak.model.gpt import GPT, ModelConfig, build
from daybreak.model.head import Head, HeadConfig, softmax_gradient_to_compile
from daybreak.model.kernels import Kernels
from daybreak.model.norm import Norm, NormConfig

ROWS, DIM, VOCABULARY = 13, 16, 37

every_head = pytest.mark.parametrize(
    ("tied", "norm_kind", "soft_cap"),
    list(itertools.product([True, False], [None, "layernorm", "rmsnorm"], [None, 2.0])),
)


def make_head(tied: bool, norm_kind: Any, soft_cap: float | None, loss_rows: int) -> Head:
    norm = None if norm_kind is None else Norm(NormConfig(kind=norm_kind), VOCABULARY, bias=True)
    head = Head(HeadConfig(tied=tied, soft_cap=soft_cap), DIM, VOCABULARY, norm, loss_rows)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return head


def features_embedding_targets(rows: int = ROWS) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(rows, DIM, generator=generator).requires_grad_()
    embedding = torch.randn(VOCABULARY, DIM, generator=generator).requires_grad_()
    targets = torch.randint(VOCABULARY, (rows,), generator=generator)
    targets[[0, 5, 6, 7, 8]] = IGNORED  # with chunks of 4 rows, one ends and one lies within
    return x, embedding, targets


def loss_written_out(head: Head, x: Tensor, embedding: Tensor, targets: Tensor) -> Tensor:
    weight = embedding if head.weight is None else head.weight
    logits = x @ weight.T
    if head.norm is not None and head.norm.kind == "layernorm":
        centred = logits - logits.mean(-1, keepdim=True)
        logits = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * head.norm.weight + head.norm.bias
    elif head.norm is not None:
        logits = logits / (logits.square().mean(-1, keepdim=True) + 1e-5).sqrt() * head.norm.weight
    if head.soft_cap is not None:
        logits = head.soft_cap * (logits / head.soft_cap).tanh()
    chosen = [logits[row, target] - logits[row].logsumexp(0) for row, target in enumerate(targets) if target != IGNORED]
    return -torch.stack(chosen).sum()


def gradients(loss: Tensor, head: Head, x: Tensor, embedding: Tensor) -> list[Tensor | None]:
    inputs = [x, embedding, *head.parameters()]
    return list(torch.autograd.grad(loss, inputs, allow_unused=True))


@every_head
@pytest.mark.parametrize("loss_rows", [0, 1, 4, ROWS, 100])
def test_the_loss_by_chunks_is_the_loss_in_value_and_all_gradients(
    loss_rows: int, tied: bool, norm_kind: str | None, soft_cap: float | None
) -> None:
    head = make_head(tied, norm_kind, soft_cap, loss_rows)
    x, embedding, targets = features_embedding_targets()
    loss, expected = head.loss(x, embedding, targets), loss_written_out(head, x, embedding, targets)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    got = gradients(loss / 7, head, x, embedding)
    for grad, expected_grad in zip(got, gradients(expected / 7, head, x, embedding), strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-5)
    assert (got[1] is None) == (not tied)


@pytest.mark.parametrize("soft_cap", [None, 2.0])
def test_the_form_for_a_compiler_is_the_same_loss(soft_cap: float | None) -> None:
    head = make_head(False, None, soft_cap, 4)
    x, embedding, targets = features_embedding_targets()
    expected = head.loss(x, embedding, targets)
    expected_grads = gradients(expected, head, x, embedding)
    head.softmax_gradient = softmax_gradient_to_compile
    got = head.loss(x, embedding, targets)
    torch.testing.assert_close(got, expected)
    for grad, expected_grad in zip(gradients(got, head, x, embedding), expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize("tied", [True, False])
def test_under_bf16_the_chunks_are_near_the_loss_in_fp32(tied: bool) -> None:
    x, embedding, targets = features_embedding_targets()
    head = make_head(tied, None, None, 4)
    with torch.autocast("cpu", torch.bfloat16):
        loss = head.loss(x, embedding, targets)
    assert loss.dtype == torch.float32
    expected = loss_written_out(head, x, embedding, targets)
    torch.testing.assert_close(loss, expected, rtol=0.01, atol=0.1)
    got = gradients(loss, head, x, embedding)
    for grad, expected_grad in zip(got, gradients(expected, head, x, embedding), strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=0.05, atol=0.1)


def make_model(tied: bool, loss_rows: int) -> GPT:
    head: Any = {"tied": tied}
    sizes: dict[str, Any] = {"layers": 1, "heads": 2, "dim": 16, "context": 6, "vocab_size": VOCABULARY}
    return build(ModelConfig(**sizes, head=head), 0, torch.device("cpu"), Kernels(loss_rows))


TOKENS = torch.randint(VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("tied", [True, False])
def test_the_loss_by_chunks_can_be_measured_without_gradients(context: Any, tied: bool) -> None:
    expected = make_model(tied, 0)(TOKENS[:, :-1], TOKENS[:, 1:])
    with context():
        measured = make_model(tied, 5)(TOKENS[:, :-1], TOKENS[:, 1:])
    assert not measured.requires_grad
    assert measured.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_measuring_by_chunks_computes_no_gradients(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a gradient was computed for nothing")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    with torch.no_grad():
        assert make_model(tied, 5)(TOKENS[:, :-1], TOKENS[:, 1:]).isfinite()


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_with_chunks_has_the_gradients_of_one_without(tied: bool) -> None:
    found = []
    for loss_rows in (0, 5):
        model = make_model(tied, loss_rows)
        loss = model(TOKENS[:, :-1], TOKENS[:, 1:])
        loss.backward()
        found.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
    for plain, chunked in zip(*found, strict=True):
        torch.testing.assert_close(chunked, plain, rtol=1e-4, atol=1e-5)


class LargestTensor(TorchDispatchMode):
    """Sees every tensor that any operation makes, in the forward and in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(each, Tensor):
                self.elements = max(self.elements, each.numel())
        return out


@pytest.mark.parametrize(("loss_rows", "holds_all"), [(0, True), (3, False)])
def test_all_logits_are_never_held_at_once(loss_rows: int, holds_all: bool) -> None:
    rows = 100
    head = make_head(True, None, 2.0, loss_rows)
    x, embedding, targets = features_embedding_targets(rows)
    with LargestTensor() as largest:
        head.loss(x, embedding, targets).backward()
    others = max(rows, VOCABULARY) * DIM  # the features, the embedding, and their gradients
    assert largest.elements == (rows * VOCABULARY if holds_all else others)
    assert x.grad is not None


def test_the_loss_is_a_sum_in_nats() -> None:
    head = make_head(True, None, None, 0)
    targets = torch.tensor([1, IGNORED, 3])
    loss = head.loss(torch.zeros(3, DIM), torch.ones(VOCABULARY, DIM), targets)
    torch.testing.assert_close(loss, 2 * torch.tensor(float(VOCABULARY)).log())
