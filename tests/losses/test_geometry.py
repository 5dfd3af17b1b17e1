"""Magnitude and direction of features against arithmetic by hand and by loops."""

import math

import pytest
import torch
from torch import Tensor

from lauter.errors import ModelError
from lauter.losses.geometry import angle, direction, magnitude, norm_ratio
from lauter.losses.mimic import l2


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    return student.requires_grad_(), teacher


def cosine_by_loop(first: list[float], second: list[float]) -> float:
    inner = sum(a * b for a, b in zip(first, second, strict=True))
    return inner / math.sqrt(sum(a * a for a in first)) / math.sqrt(sum(b * b for b in second))


def test_terms_equal_the_loops(pair: tuple[Tensor, Tensor]) -> None:
    student, teacher = pair
    rows = list(zip(student.tolist(), teacher.tolist(), strict=True))
    cosines = torch.tensor([cosine_by_loop(s, t) for s, t in rows], dtype=torch.float64)
    norms = torch.tensor([(math.hypot(*s), math.hypot(*t)) for s, t in rows], dtype=torch.float64)
    torch.testing.assert_close(direction(student, teacher).detach(), 1 - cosines)
    torch.testing.assert_close(angle(student, teacher), torch.rad2deg(torch.acos(cosines)))
    torch.testing.assert_close(magnitude(student, teacher).detach(), (norms[:, 0] - norms[:, 1]) ** 2 / 5)
    torch.testing.assert_close(norm_ratio(student, teacher), norms[:, 0] / norms[:, 1])


def test_l2_splits_into_magnitude_and_direction(pair: tuple[Tensor, Tensor]) -> None:
    student, teacher = pair
    product = student.norm(dim=1) * teacher.norm(dim=1)
    whole = magnitude(student, teacher) + 2 * product / 5 * direction(student, teacher)
    torch.testing.assert_close(l2(student, teacher), whole)


def test_direction_ignores_norms_and_magnitude_ignores_direction(pair: tuple[Tensor, Tensor]) -> None:
    student, teacher = pair
    torch.testing.assert_close(direction(7 * student, 0.1 * teacher), direction(student, teacher))
    torch.testing.assert_close(magnitude(student.roll(1, dims=1), -teacher), magnitude(student, teacher))
    opposite = direction(student, -teacher) - direction(student, teacher)
    assert float(opposite.detach().abs().max()) > 0.1
    longer = magnitude(7 * student, teacher) - magnitude(student, teacher)
    assert float(longer.detach().min()) > 0.1


def test_gradients_agree_with_differences(pair: tuple[Tensor, Tensor]) -> None:
    student, teacher = pair
    torch.autograd.gradcheck(lambda s: direction(s, teacher), student)
    torch.autograd.gradcheck(lambda s: magnitude(s, teacher), student)
    teacher.requires_grad_()
    (direction(student, teacher) + magnitude(student, teacher)).sum().backward()
    assert teacher.grad is None
    assert not angle(student, teacher).requires_grad
    assert not norm_ratio(student, teacher).requires_grad


@pytest.mark.parametrize("degrees", [0.0, 1e-3, 1.0, 45.0, 90.0, 179.0, 179.999, 180.0])
def test_angle_is_exact_near_its_ends_in_float32(degrees: float) -> None:
    theta = math.radians(degrees)
    student = torch.tensor([[50 * math.cos(theta), 50 * math.sin(theta)]])
    torch.testing.assert_close(
        angle(student, torch.tensor([[0.1, 0.0]])), torch.tensor([degrees]), rtol=1e-6, atol=2e-5
    )


@pytest.mark.parametrize("norm", [0.0, 1e-6, 1e-3, 1.0, 1e4])
def test_finite_at_every_norm(norm: float) -> None:
    teacher = torch.tensor([[0.6, 0.8], [0.6, 0.8]])
    student = (norm * torch.tensor([[1.0, 0.0], [0.6, 0.8]])).requires_grad_()
    torch.testing.assert_close(direction(student, teacher), torch.tensor([0.4, 0.0] if norm else [1.0, 1.0]))
    (direction(student, teacher) + magnitude(student, teacher)).sum().backward()
    assert bool(student.grad.isfinite().all())
    expected = [math.degrees(math.acos(0.6)), 0.0] if norm else [90.0, 90.0]
    torch.testing.assert_close(angle(student, teacher), torch.tensor(expected), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(norm_ratio(student, teacher), torch.tensor([norm, norm]))


def test_zero_features_have_no_direction() -> None:
    zero = torch.zeros(1, 3, requires_grad=True)
    torch.testing.assert_close(direction(zero, zero.detach()), torch.tensor([1.0]))
    torch.testing.assert_close(angle(zero, zero), torch.tensor([90.0]))
    torch.testing.assert_close(norm_ratio(zero, zero), torch.tensor([0.0]))
    assert bool(norm_ratio(zero + 1, zero).isfinite().all())
    (gradient,) = torch.autograd.grad(direction(zero, torch.ones(1, 3)).sum(), zero)
    torch.testing.assert_close(gradient, torch.zeros(1, 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("term", [direction, magnitude, angle, norm_ratio])
def test_half_precision_is_lifted(term, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    student, teacher = ((300 * torch.rand(3, 8, generator=generator)).to(dtype) for _ in range(2))
    torch.testing.assert_close(term(student, teacher), term(student.float(), teacher.float()), rtol=0, atol=0)


@pytest.mark.parametrize("term", [direction, magnitude, angle, norm_ratio])
def test_shape_errors_name_both_shapes(term) -> None:
    with pytest.raises(ModelError, match=r"\[4, 3\] and \[4, 2\]"):
        term(torch.zeros(4, 3), torch.zeros(4, 2))
