"""Relations between the images of a batch against loops, and what each of them must not see."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lauter.errors import ModelError
from lauter.losses.relations import pkt, rkd_angle, rkd_distance, sp

Loss = Callable[[Tensor, Tensor], Tensor]
B = 5
LOSSES: list[Loss] = [sp, pkt, rkd_distance, rkd_angle]


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(B, 4, generator=generator, dtype=torch.float64)
    return student.requires_grad_(), torch.randn(B, 7, generator=generator, dtype=torch.float64)


def dot(first: list[float], second: list[float]) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True))


def minus(first: list[float], second: list[float]) -> list[float]:
    return [a - b for a, b in zip(first, second, strict=True)]


def length(vector: list[float]) -> float:
    return math.sqrt(dot(vector, vector))


def huber(x: float) -> float:
    return 0.5 * x * x if abs(x) <= 1 else abs(x) - 0.5


def sp_by_loop(student: list[list[float]], teacher: list[list[float]]) -> float:
    total = 0.0
    for i in range(B):
        rows = [[dot(rows[i], other) for other in rows] for rows in (student, teacher)]
        units = [[entry / length(row) for entry in row] for row in rows]
        total += sum(gap**2 for gap in minus(*units))
    return total / B**2


def pkt_by_loop(student: list[list[float]], teacher: list[list[float]]) -> float:
    def share(rows: list[list[float]], i: int) -> list[float]:
        near = [1 + dot(rows[i], other) / length(rows[i]) / length(other) for other in rows]
        return [entry / sum(near) for entry in near]

    total = 0.0
    for i in range(B):
        q, p = share(student, i), share(teacher, i)
        total += sum(a * math.log((a + 1e-7) / (b + 1e-7)) for a, b in zip(p, q, strict=True))
    return total / B**2


def rkd_distance_by_loop(student: list[list[float]], teacher: list[list[float]]) -> float:
    def scaled(rows: list[list[float]]) -> list[list[float]]:
        distances = [[length(minus(a, b)) for b in rows] for a in rows]
        positive = [d for row in distances for d in row if d > 0]
        return [[d * len(positive) / sum(positive) for d in row] for row in distances]

    rows = zip(scaled(student), scaled(teacher), strict=True)
    return sum(huber(gap) for s, t in rows for gap in minus(s, t)) / B**2


def rkd_angle_by_loop(student: list[list[float]], teacher: list[list[float]]) -> float:
    def cosine(rows: list[list[float]], i: int, j: int, k: int) -> float:
        first, second = minus(rows[i], rows[j]), minus(rows[k], rows[j])
        lengths = length(first) * length(second)
        return dot(first, second) / lengths if lengths else 0.0

    triples = [(i, j, k) for i in range(B) for j in range(B) for k in range(B)]
    return sum(huber(cosine(student, *at) - cosine(teacher, *at)) for at in triples) / B**3


@pytest.mark.parametrize(
    ("loss", "by_loop"),
    [
        (sp, sp_by_loop),
        (pkt, pkt_by_loop),
        (rkd_distance, rkd_distance_by_loop),
        (rkd_angle, rkd_angle_by_loop),
    ],
)
def test_equals_the_loop(
    pair: tuple[Tensor, Tensor],
    loss: Loss,
    by_loop: Callable[[list[list[float]], list[list[float]]], float],
) -> None:
    student, teacher = pair
    expected = torch.tensor(by_loop(student.tolist(), teacher.tolist()), dtype=torch.float64)
    torch.testing.assert_close(loss(student, teacher).detach(), expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_rotated_and_scaled_features_cost_nothing_and_others_do(
    pair: tuple[Tensor, Tensor], loss: Loss
) -> None:
    _, teacher = pair
    rotation = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64, generator=torch.Generator())).Q
    zero = torch.tensor(0.0, dtype=torch.float64)
    torch.testing.assert_close(loss(3 * teacher @ rotation, teacher), zero, rtol=0, atol=1e-12)
    assert float(loss(teacher.roll(1, 0), teacher)) > 1e-4


@pytest.mark.parametrize("loss", [rkd_distance, rkd_angle])
def test_where_the_origin_lies_does_not_matter_to_rkd(pair: tuple[Tensor, Tensor], loss: Loss) -> None:
    student, teacher = pair
    torch.testing.assert_close(loss(student + 100, teacher - 50), loss(student, teacher))
    moved = sp(student + 100, teacher) - sp(student, teacher)
    assert abs(float(moved.detach())) > 1e-3


@pytest.mark.parametrize("loss", LOSSES)
def test_the_order_of_the_images_does_not_matter(pair: tuple[Tensor, Tensor], loss: Loss) -> None:
    student, teacher = pair
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(loss(student[order], teacher[order]), loss(student, teacher))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_agrees_with_differences_and_spares_the_teacher(
    pair: tuple[Tensor, Tensor], loss: Loss
) -> None:
    student, teacher = pair
    torch.autograd.gradcheck(lambda s: loss(s, teacher), student)
    teacher.requires_grad_()
    loss(student, teacher).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lifted_whatever_the_autocast(pair: tuple[Tensor, Tensor], loss: Loss, dtype: torch.dtype) -> None:
    student, teacher = (features.detach().to(dtype) for features in pair)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(student, teacher)
    torch.testing.assert_close(value, loss(student.double(), teacher.double()).float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_zero_and_equal_features_and_single_images_are_finite(loss: Loss) -> None:
    generator = torch.Generator().manual_seed(1)
    teacher = torch.randn(B, 3, generator=generator)
    lone = torch.randn(B, 3, generator=generator)
    lone[1] = lone[0]
    lone[2] = 0
    for features in (lone, torch.zeros(B, 3), torch.ones(B, 3), 1e4 * lone):
        student = features.clone().requires_grad_()
        for one, other in ((student, teacher), (student, student.detach()), (student[:1], teacher[:1])):
            value = loss(one, other)
            (gradient,) = torch.autograd.grad(value, student)
            assert bool(value.isfinite())
            assert bool(gradient.isfinite().all())


def test_a_single_image_has_no_relations() -> None:
    for loss in LOSSES:
        torch.testing.assert_close(loss(torch.ones(1, 3), torch.ones(1, 2)), torch.tensor(0.0))


@pytest.mark.parametrize(("center", "gap"), [(100.0, 1e-2), (0.0, 1e-3)])
def test_angles_keep_their_digits_in_float32(center: float, gap: float) -> None:
    # Far from the origin, and between images that are all but one: where inner products cancel.
    generator = torch.Generator().manual_seed(2)
    student = center + torch.randn(6, 64, generator=generator)
    student[1] = student[0] + gap * torch.randn(64, generator=generator)
    teacher = torch.randn(6, 32, generator=generator)
    exact = rkd_angle(student.double(), teacher.double()).float()
    torch.testing.assert_close(rkd_angle(student, teacher), exact, rtol=5e-4, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_errors(pair: tuple[Tensor, Tensor], loss: Loss) -> None:
    student, teacher = pair
    with pytest.raises(ModelError, match=r"of the same images .*\[5, 4\] and \[4, 7\]"):
        loss(student, teacher[:4])
    with pytest.raises(ModelError, match=r"\[5, 4, 1\] and \[5, 7\]; flatten maps"):
        loss(student[:, :, None], teacher)
