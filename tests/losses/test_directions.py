"""Direction and norm apart, and the ND loss, against loops and by hand."""

import math

import pytest
import torch
from torch import Tensor

from lauter.errors import ModelError
from lauter.losses.directions import cosine, nd, norm_gap


@pytest.fixture
def triple() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher, centers = (torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in "stc")
    return student.requires_grad_(), teacher, centers


def test_nd_equals_the_loop(triple: tuple[Tensor, Tensor, Tensor]) -> None:
    expected = []
    for s, t, c in zip(*(features.tolist() for features in triple), strict=True):
        along = sum(a * b for a, b in zip(s, c, strict=True)) / math.hypot(*c)
        expected.append(1 - along / max(math.hypot(*s), math.hypot(*t)))
    torch.testing.assert_close(nd(*triple).detach(), torch.tensor(expected, dtype=torch.float64))


def test_nd_pulls_short_features_longer_and_leaves_long_ones_free(
    triple: tuple[Tensor, Tensor, Tensor],
) -> None:
    _, teacher, centers = triple
    student = centers.clone() + 0.1
    teacher = teacher * (10 * student.norm(dim=1) / teacher.norm(dim=1))[:, None]
    lengths = [nd(factor * student, teacher, centers) for factor in (1.0, 5.0, 10.0, 20.0)]
    assert bool((lengths[0] > lengths[1]).all() & (lengths[1] > lengths[2]).all())
    torch.testing.assert_close(lengths[2], lengths[3])
    torch.testing.assert_close(lengths[3], cosine(student, centers))


def test_nd_sees_the_directions_of_centres_alone(triple: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher, centers = triple
    torch.testing.assert_close(nd(student, teacher, 7 * centers), nd(student, teacher, centers))
    torch.testing.assert_close(nd(student, -teacher.roll(1, 1), centers), nd(student, teacher, centers))
    turned = nd(student, teacher, -centers) - nd(student, teacher, centers)
    assert float(turned.detach().abs().max()) > 0.1


def test_nd_gradient_agrees_with_differences_and_spares_the_rest(
    triple: tuple[Tensor, Tensor, Tensor],
) -> None:
    student, teacher, centers = triple
    torch.autograd.gradcheck(lambda s: nd(s, teacher, centers), student)
    teacher.requires_grad_()
    centers.requires_grad_()
    nd(student, teacher, centers).sum().backward()
    assert teacher.grad is None
    assert centers.grad is None


def test_nd_without_lengths() -> None:
    # A zero student is still pulled along its centre; without a centre, or without any length, nothing pulls.
    student = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]).requires_grad_()
    teacher = torch.tensor([[0.0, 2.0], [1.0, 0.0], [0.0, 0.0]])
    centers = torch.tensor([[5.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    losses = nd(student, teacher, centers)
    torch.testing.assert_close(losses.detach(), torch.ones(3))
    (gradient,) = torch.autograd.grad(losses.sum(), student)
    torch.testing.assert_close(gradient, torch.tensor([[-0.5, 0.0], [0.0, 0.0], [0.0, 0.0]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_nd_is_lifted(dtype: torch.dtype) -> None:
    features = torch.full((2, 3), 200.0, dtype=dtype)
    torch.testing.assert_close(nd(features, features, features), torch.zeros(2), rtol=0, atol=1e-6)


def test_direction_and_norm_are_the_two_parts_of_a_distance(triple: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher = triple[0].detach(), triple[1]
    for s, t, angle, gap in zip(
        student.tolist(), teacher.tolist(), cosine(student, teacher), norm_gap(student, teacher), strict=True
    ):
        squared = sum((a - b) ** 2 for a, b in zip(s, t, strict=True))
        whole = 5 * gap + 2 * math.hypot(*s) * math.hypot(*t) * angle
        torch.testing.assert_close(whole, torch.tensor(squared, dtype=torch.float64))


def test_errors(triple: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher, centers = triple
    with pytest.raises(ModelError, match=r"student and teacher features .*\[6, 5\] and \[6, 4\]"):
        nd(student, teacher[:, :4], centers)
    with pytest.raises(ModelError, match=r"student features and class centres .*\[6, 5\] and \[3, 5\]"):
        nd(student, teacher, centers[:3])
