"""Regression of raw projections against loops, and its limits for many hashes."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lauter.errors import ModelError
from lauter.losses.hashing import draw_hash_weights
from lauter.losses.mimic import l2
from lauter.losses.projections import projection_l1, projection_l2

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
B, D, N = 4, 6, 30
LOSSES: list[Loss] = [projection_l1, projection_l2]


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    student = draw(B, D, seed=1).requires_grad_()
    return student, draw(B, D, seed=2), draw(N, D, seed=3), draw(N, seed=4)


def project_by_loop(feature: list[float], weight: list[list[float]], bias: list[float]) -> list[float]:
    return [
        sum(a * b for a, b in zip(w, feature, strict=True)) + c for w, c in zip(weight, bias, strict=True)
    ]


@pytest.mark.parametrize(("loss", "power"), [(projection_l1, 1), (projection_l2, 2)])
def test_equals_the_loop(inputs: tuple[Tensor, Tensor, Tensor, Tensor], loss: Loss, power: int) -> None:
    student, teacher, weight, bias = (entry.tolist() for entry in inputs)
    expected = []
    for s, t in zip(student, teacher, strict=True):
        pairs = zip(project_by_loop(s, weight, bias), project_by_loop(t, weight, bias), strict=True)
        expected.append(sum(abs(a - b) ** power for a, b in pairs) / N)
    torch.testing.assert_close(loss(*inputs).detach(), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_agrees_with_differences_and_reaches_the_student_alone(
    inputs: tuple[Tensor, Tensor, Tensor, Tensor], loss: Loss
) -> None:
    student, *rest = inputs
    torch.autograd.gradcheck(lambda s: loss(s, *rest), student)
    for entry in rest:
        entry.requires_grad_()
    (torch.arange(B) * loss(*inputs)).sum().backward()
    assert [entry.grad for entry in rest] == [None, None, None]
    torch.testing.assert_close(student.grad[0], torch.zeros(D, dtype=torch.float64))
    assert float(student.grad[1:].abs().min()) > 0


def test_many_hashes_tend_to_distances() -> None:
    student, teacher = draw(B, D, seed=5).float(), draw(B, D, seed=6).float()
    weight = draw_hash_weights(200_000, D, 0.3, torch.Generator().manual_seed(7))
    bias = torch.zeros(len(weight))
    distance = (student - teacher).norm(dim=1)
    absolute = projection_l1(student, teacher, weight, bias)
    torch.testing.assert_close(absolute, 0.3 * math.sqrt(2 / math.pi) * distance, rtol=0.01, atol=0)
    squared = projection_l2(student, teacher, weight, bias)
    torch.testing.assert_close(squared, 0.09 * D * l2(student, teacher), rtol=0.02, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_of_the_size_of_the_projections_outlives_the_call(loss: Loss) -> None:
    student = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    saved: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss(student, torch.ones(8, 4), torch.ones(1000, 4), torch.zeros(1000))
    assert saved == [8 * 4]


@pytest.mark.parametrize("loss", LOSSES)
def test_lifted_whatever_the_autocast(loss: Loss) -> None:
    student = torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16)
    teacher = torch.tensor([[1.0, 2.0078125]])
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(student, teacher, torch.tensor([[0.0, 1.0]]), torch.zeros(1))
    power = 1 if loss is projection_l1 else 2
    torch.testing.assert_close(value, torch.tensor([0.0078125**power]))


@pytest.mark.parametrize("loss", LOSSES)
def test_errors(inputs: tuple[Tensor, Tensor, Tensor, Tensor], loss: Loss) -> None:
    student, teacher, weight, bias = inputs
    with pytest.raises(ModelError, match=r"student and teacher features .*\[4, 6\] and \[4, 5\]"):
        loss(student, teacher[:, :5], weight, bias)
    with pytest.raises(ModelError, match=r"features \[4, 6\] do not fit hash weights \[30, 5\]"):
        loss(student, teacher, weight[:, :5], bias)
    with pytest.raises(ModelError, match=r"bias of the hashes must have shape \[30\]"):
        loss(student, teacher, weight, bias[:7])
