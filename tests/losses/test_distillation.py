"""Soft-logit distillation against a loop and its limits."""

import math

import pytest
import torch
from torch import Tensor

from lauter.errors import ConfigError, ModelError
from lauter.losses.distillation import kd


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    return student.requires_grad_(), teacher


def softmax_by_loop(row: list[float], temperature: float) -> list[float]:
    weights = [math.exp(x / temperature) for x in row]
    return [weight / sum(weights) for weight in weights]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_kd_equals_the_loop(pair: tuple[Tensor, Tensor], temperature: float) -> None:
    student, teacher = pair
    losses = []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        q, p = softmax_by_loop(s, temperature), softmax_by_loop(t, temperature)
        divergence = sum(p_k * math.log(p_k / q_k) for p_k, q_k in zip(p, q, strict=True))
        losses.append(temperature**2 * divergence)
    expected = torch.tensor(losses, dtype=torch.float64)
    torch.testing.assert_close(kd(student, teacher, temperature).detach(), expected)


def test_default_temperature_is_four(pair: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(kd(*pair), kd(*pair, temperature=4.0))


def test_the_gradient_tends_to_matching_centred_logits(pair: tuple[Tensor, Tensor]) -> None:
    # Hinton et al., section 2.1: at high temperature KD is regression on logits of zero mean; the factor T^2
    # is what keeps this limit finite.
    student, teacher = pair
    (gradient,) = torch.autograd.grad(kd(student, teacher, temperature=1e4).sum(), student)
    gap = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    torch.testing.assert_close(gradient, gap.detach() / 4, rtol=0, atol=1e-3)


def test_equal_up_to_a_shift_is_zero_and_else_positive(pair: tuple[Tensor, Tensor]) -> None:
    student, teacher = pair
    torch.testing.assert_close(kd(student + 3, student), torch.zeros(5, dtype=torch.float64))
    assert float(kd(student, teacher).detach().min()) > 0


def test_gradient_agrees_with_differences_and_spares_the_teacher(pair: tuple[Tensor, Tensor]) -> None:
    student, teacher = pair
    torch.autograd.gradcheck(lambda s: kd(s, teacher), student)
    teacher.requires_grad_()
    kd(student, teacher).sum().backward()
    assert teacher.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_at_large_logits_and_lifted(dtype: torch.dtype) -> None:
    student = torch.tensor([[1e4, -1e4], [0.0, 1e4]], dtype=dtype).requires_grad_()
    teacher = torch.tensor([[-1e4, 1e4], [0.0, 1e4]], dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        losses = kd(student, teacher, temperature=1.0)
    assert losses.dtype == torch.float32
    wide = 2 * float(torch.tensor(1e4, dtype=dtype))
    torch.testing.assert_close(losses.detach(), torch.tensor([wide, 0.0]))
    (gradient,) = torch.autograd.grad(losses.sum(), student)
    assert bool(gradient.isfinite().all())


def test_errors(pair: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(ModelError, match=r"student and teacher logits .*\[5, 4\] and \[5, 3\]"):
        kd(pair[0], pair[1][:, :3])
    for temperature in (0.0, -1.0, math.inf):
        with pytest.raises(ConfigError, match="temperature must be positive and finite, not"):
            kd(*pair, temperature=temperature)
