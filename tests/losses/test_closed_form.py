"""The LSH loss with infinitely many hashes against adaptive quadrature of its definition."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq
from torch import Tensor

from lauter.errors import ConfigError, ModelError
from lauter.losses.closed_form import expected_excess, lsh_expected, optimal_radius

RADII = [1e-3, 0.03, 0.5, 0.9, 1 - 1e-6, 1.0, 1 + 1e-6, 1.3, 2.0, 5.0, 20.0, 300.0, 1e4]
DRAWN = [*RADII, *np.geomspace(1e-3, 1e4, 20).tolist()]


def normal_density(z: float) -> float:
    return math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def integrate_even(function, scale: float, end: float = 30.0) -> float:
    """Adaptive quadrature of an even function over -end..end, split where log cosh(r z / 2) bends."""
    ends = [0.0, *(x for x in (scale, 10 * scale, 40 * scale) if x < end), end]
    return 2 * sum(quad(function, a, b, epsabs=0, epsrel=1e-12, limit=400)[0] for a, b in pairwise(ends))


def g_by_quadrature(r: float) -> float:
    """E log(2 cosh(r Z / 2)), from its definition."""
    return integrate_even(
        lambda z: normal_density(z) * (r * z / 2 + math.log1p(math.exp(-r * z))), scale=1 / r
    )


def g_slope_by_quadrature(r: float) -> float:
    """E Z/2 tanh(r Z / 2), its derivative."""
    return integrate_even(lambda z: normal_density(z) * z / 2 * math.tanh(r * z / 2), scale=1 / r)


def at_angle(r: float, degrees: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """A student of norm r at an angle to a teacher of norm 3."""
    theta = math.radians(degrees)
    student = torch.tensor([[r * math.cos(theta), r * math.sin(theta)]], dtype=dtype).requires_grad_()
    return student, torch.tensor([[3.0, 0.0]], dtype=dtype)


@pytest.mark.parametrize("r", DRAWN)
def test_value_and_slope_equal_adaptive_quadrature(r: float) -> None:
    value, slope = expected_excess(torch.tensor([r], dtype=torch.float64))
    ramp = 1 / math.sqrt(2 * math.pi)
    expected = torch.tensor([g_by_quadrature(r)], dtype=torch.float64)
    torch.testing.assert_close(value + r * ramp, expected, rtol=3e-9, atol=0)
    expected = torch.tensor([g_slope_by_quadrature(r)], dtype=torch.float64)
    torch.testing.assert_close(slope + ramp, expected, rtol=0, atol=1.2e-8)


@pytest.mark.parametrize("r", DRAWN)
def test_excess_keeps_its_digits_at_large_radii(r: float) -> None:
    value, slope = expected_excess(torch.tensor([r], dtype=torch.float32))
    excess = integrate_even(
        lambda z: normal_density(z) * math.log1p(math.exp(-r * z)), scale=1 / r, end=min(30.0, 80 / r)
    )
    torch.testing.assert_close(value, torch.tensor([excess]), rtol=1e-6, atol=0)
    falling = integrate_even(
        lambda z: -normal_density(z) * z / (1 + math.exp(min(r * z, 700.0))),
        scale=1 / r,
        end=min(30.0, 80 / r),
    )
    torch.testing.assert_close(slope, torch.tensor([falling]), rtol=2e-6, atol=0)


@pytest.mark.parametrize("degrees", [0.0, 20.0, 90.0, 150.0, 180.0])
@pytest.mark.parametrize("r", [1e-3, 0.5, 1.0, 20.0, 1e4])
def test_loss_and_gradient_equal_the_formula(r: float, degrees: float) -> None:
    std = 0.25
    student, teacher = at_angle(r / std, degrees)
    loss = lsh_expected(student, teacher, std=std)
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    ramp = 1 / math.sqrt(2 * math.pi)
    expected = torch.tensor([g_by_quadrature(r) - r * cosine * ramp], dtype=torch.float64)
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-8, atol=1e-9)
    slope = g_slope_by_quadrature(r)
    expected = std * torch.tensor([[slope * cosine - ramp, slope * sine]], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-8)


def test_value_and_gradient_are_smooth_across_the_seam() -> None:
    radii = torch.tensor([1 - 1e-9, 1.0, 1 + 1e-9], dtype=torch.float64)
    for part in expected_excess(radii):
        torch.testing.assert_close(part.diff(), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1.2e-8)
    radii = torch.linspace(0.9, 1.1, 201, dtype=torch.float64)
    value, slope = expected_excess(radii)
    assert float(value.diff().max()) < 0  # H falls and is convex, so its slope rises, without a step at 1
    assert float(slope.diff().min()) > 0
    torch.testing.assert_close(slope.diff()[99:101], slope.diff()[[98, 101]], rtol=0.02, atol=0)


def test_gradient_agrees_with_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    student = student * torch.tensor([0.05, 0.3, 1.0, 3.0, 10.0, 50.0], dtype=torch.float64)[:, None]
    student.requires_grad_()
    torch.autograd.gradcheck(lambda s: lsh_expected(s, teacher, std=0.7), student)
    center = teacher.mean(0)
    torch.autograd.gradcheck(lambda s: lsh_expected(s, teacher, std=0.7, center=center), student)


def test_example_weights_reach_the_gradient() -> None:
    student, teacher = at_angle(2.0, 40.0)
    (once,) = torch.autograd.grad(lsh_expected(student, teacher, std=1.0).sum(), student)
    (thrice,) = torch.autograd.grad(3 * lsh_expected(student, teacher, std=1.0).sum(), student)
    torch.testing.assert_close(thrice, 3 * once)


def test_only_the_student_gets_a_gradient() -> None:
    student, teacher = at_angle(2.0, 40.0)
    teacher.requires_grad_()
    center = torch.full((2,), 0.1, dtype=torch.float64, requires_grad=True)
    lsh_expected(student, teacher, std=1.0, center=center).sum().backward()
    assert teacher.grad is None
    assert center.grad is None


def test_teacher_norm_drops_out_and_the_centre_moves_both() -> None:
    student, teacher = at_angle(2.0, 40.0)
    plain = lsh_expected(student, teacher, std=0.7)
    torch.testing.assert_close(lsh_expected(student, 1e3 * teacher, std=0.7), plain)
    torch.testing.assert_close(lsh_expected(0.7 * student, teacher, std=1.0), plain)
    center = torch.tensor([0.5, -2.0], dtype=torch.float64)
    torch.testing.assert_close(
        lsh_expected(student + center, teacher + center, std=0.7, center=center), plain
    )


def test_it_always_pulls_the_direction_in() -> None:
    angles = torch.arange(0, 181, 5).tolist()
    for r in (0.1, 1.0, 30.0):
        losses = torch.cat([lsh_expected(*at_angle(r, degrees), std=1.0) for degrees in angles]).detach()
        assert float(losses.diff().min()) > 0


def test_convex_in_the_student() -> None:
    generator = torch.Generator().manual_seed(1)
    first, second, teacher = (
        4 * torch.randn(50, 3, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    chord = 0.5 * (lsh_expected(first, teacher, std=1.0) + lsh_expected(second, teacher, std=1.0))
    middle = lsh_expected(0.5 * (first + second), teacher, std=1.0)
    assert float((chord - middle).min()) > 0


def test_invariant_to_a_joint_rotation() -> None:
    generator = torch.Generator().manual_seed(2)
    student, teacher, matrix = (torch.randn(6, 6, generator=generator, dtype=torch.float64) for _ in range(3))
    rotation = torch.linalg.qr(matrix).Q
    turned = lsh_expected(student @ rotation, teacher @ rotation, std=0.8)
    torch.testing.assert_close(turned, lsh_expected(student, teacher, std=0.8))


@pytest.mark.parametrize("norm", [0.0, 1e-30, 1e-6, 1e-3, 0.999, 1.0, 1.001, 1e2, 1e4])
def test_finite_at_every_norm_in_float32(norm: float) -> None:
    for degrees in (0.0, 0.06, 40.0, 180.0):
        student, teacher = at_angle(norm, degrees, torch.float32)
        loss = lsh_expected(student, teacher, std=0.5)
        (gradient,) = torch.autograd.grad(loss.sum(), student)
        assert bool(gradient.isfinite().all())
        exact = lsh_expected(student.detach().double(), teacher.double(), std=0.5)
        torch.testing.assert_close(loss.detach().double(), exact, rtol=1e-3, atol=1e-9)


def test_small_angles_keep_their_digits_in_float32() -> None:
    # 1 - cos(0.06 degrees) = 5.5e-7: computed as written, float32 would leave it one digit.
    student, teacher = at_angle(1e3, 0.06, torch.float32)
    loss = lsh_expected(student, teacher, std=1.0)
    r, theta = 1e3, math.radians(0.06)
    excess = g_by_quadrature(r) - r / math.sqrt(2 * math.pi)
    expected = excess + r * 2 * math.sin(theta / 2) ** 2 / math.sqrt(2 * math.pi)
    torch.testing.assert_close(loss.detach(), torch.tensor([expected]), rtol=1e-3, atol=0)


def test_zero_student_pays_ln_2_and_is_pulled_to_the_teacher() -> None:
    student, teacher = at_angle(0.0, 0.0)
    loss = lsh_expected(student, teacher, std=0.5)
    torch.testing.assert_close(loss.detach(), torch.tensor([math.log(2)], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    expected = torch.tensor([[-0.5 / math.sqrt(2 * math.pi), 0.0]], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected)


def test_zero_teacher_leaves_g_since_its_bits_are_all_zero() -> None:
    student, teacher = at_angle(2.0, 40.0)
    loss = lsh_expected(student, 0 * teacher, std=0.5)
    torch.testing.assert_close(loss.detach(), torch.tensor([g_by_quadrature(1.0)], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    torch.testing.assert_close(gradient, 0.5 * g_slope_by_quadrature(1.0) * student.detach() / 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_are_lifted(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    student, teacher = (torch.randn(4, 9, generator=generator).to(dtype) for _ in range(2))
    student.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = lsh_expected(student, teacher, std=0.5, center=torch.zeros(9, dtype=dtype))
    assert loss.dtype == torch.float32
    expected = lsh_expected(student.detach().float(), teacher.float(), std=0.5)
    torch.testing.assert_close(loss.detach(), expected, rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    assert gradient.dtype == dtype
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize(("degrees", "published"), [(5, 20.71), (10, 10.24), (30, 3.036), (60, 0.951)])
def test_optimal_radius_golden(degrees: float, published: float) -> None:
    digit = 0.005 if published > 10 else 0.0005
    assert optimal_radius(degrees) == pytest.approx(published, abs=digit)


@pytest.mark.parametrize("degrees", [0.5, 5, 30, 60, 85])
def test_optimal_radius_is_the_root_of_the_slope(degrees: float) -> None:
    target = math.cos(math.radians(degrees)) / math.sqrt(2 * math.pi)
    root = brentq(lambda r: g_slope_by_quadrature(r) - target, 1e-3, 1e3, xtol=1e-9, rtol=1e-9)
    assert optimal_radius(degrees) == pytest.approx(root, rel=1e-5)


def test_optimal_radius_is_where_the_radial_gradient_vanishes() -> None:
    student, teacher = at_angle(optimal_radius(25.0) / 0.3, 25.0)
    (gradient,) = torch.autograd.grad(lsh_expected(student, teacher, std=0.3).sum(), student)
    torch.testing.assert_close((gradient * student).sum().detach(), torch.zeros((), dtype=torch.float64))


def test_optimal_radius_at_and_beyond_a_right_angle_is_zero() -> None:
    assert optimal_radius(89.99) == pytest.approx(
        4 * math.cos(math.radians(89.99)) / math.sqrt(2 * math.pi), rel=1e-3
    )
    assert [optimal_radius(degrees) for degrees in (90.0, 120.0, 180.0)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("degrees", [0.0, -1.0, 181.0, math.nan])
def test_optimal_radius_refuses_angles_without_one(degrees: float) -> None:
    with pytest.raises(ConfigError, match=r"theta .*\(0, 180\], not"):
        optimal_radius(degrees)


@pytest.mark.parametrize("std", [0.0, -1.0, math.inf, math.nan])
def test_std_must_be_positive(std: float) -> None:
    with pytest.raises(ConfigError, match="std must be positive and finite, not"):
        lsh_expected(*at_angle(1.0, 10.0), std=std)


def test_shape_errors_name_both_shapes() -> None:
    with pytest.raises(ModelError, match=r"\[4, 3\] and \[4, 2\]"):
        lsh_expected(torch.zeros(4, 3), torch.zeros(4, 2), std=1.0)
    with pytest.raises(ModelError, match=r"center must have shape \[3\] beside features \[4, 3\], not \[2\]"):
        lsh_expected(torch.zeros(4, 3), torch.zeros(4, 3), std=1.0, center=torch.zeros(2))
