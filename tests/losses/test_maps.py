"""Attention maps and hints against loops over positions and channels."""

import math

import pytest
import torch
from torch import Tensor

from lauter.errors import ModelError
from lauter.losses.maps import attention, attention_map, hint, match_sides

Maps = list[list[list[float]]]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pool_by_loop(maps: Maps, height: int, width: int) -> Maps:
    def bins(side: int, wanted: int) -> list[range]:
        return [range(i * side // wanted, math.ceil((i + 1) * side / wanted)) for i in range(wanted)]

    rows, columns = bins(len(maps[0]), height), bins(len(maps[0][0]), width)
    return [
        [[sum(plane[y][x] for y in ys for x in xs) / (len(ys) * len(xs)) for xs in columns] for ys in rows]
        for plane in maps
    ]


def attention_by_loop(maps: Maps) -> list[float]:
    energy = [
        sum(plane[y][x] ** 2 for plane in maps) / len(maps)
        for y in range(len(maps[0]))
        for x in range(len(maps[0][0]))
    ]
    length = math.sqrt(sum(value**2 for value in energy))
    return [value / length for value in energy]


@pytest.mark.parametrize(
    ("student_side", "teacher_side"), [((4, 4), (4, 4)), ((8, 8), (4, 4)), ((3, 2), (5, 4)), ((5, 2), (3, 4))]
)
def test_attention_equals_the_loop(student_side: tuple[int, int], teacher_side: tuple[int, int]) -> None:
    student, teacher = draw(3, 2, *student_side), draw(3, 5, *teacher_side, seed=1)
    height, width = (min(pair) for pair in zip(student_side, teacher_side, strict=True))
    expected = []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        first, second = (attention_by_loop(pool_by_loop(maps, height, width)) for maps in (s, t))
        gaps = [(a - b) ** 2 for a, b in zip(first, second, strict=True)]
        expected.append(sum(gaps) / len(gaps))
    torch.testing.assert_close(attention(student, teacher), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("teacher_side", [(4, 3), (2, 3), (8, 7)])
def test_hint_equals_the_loop(teacher_side: tuple[int, int]) -> None:
    student, teacher = draw(3, 2, 4, 3), draw(3, 2, *teacher_side, seed=1)
    height, width = min(4, teacher_side[0]), min(3, teacher_side[1])
    expected = []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        pooled_s, pooled_t = (pool_by_loop(maps, height, width) for maps in (s, t))
        gaps = [
            (pooled_s[c][y][x] - pooled_t[c][y][x]) ** 2
            for c in range(2)
            for y in range(height)
            for x in range(width)
        ]
        expected.append(sum(gaps) / len(gaps))
    torch.testing.assert_close(hint(student, teacher), torch.tensor(expected, dtype=torch.float64))


def test_attention_is_free_of_scale_sign_and_order_of_channels() -> None:
    student, teacher = draw(3, 4, 5, 5), draw(3, 6, 5, 5, seed=1)
    losses = attention(student, teacher)
    torch.testing.assert_close(attention(-7 * student.flip(1), 0.01 * teacher), losses)
    torch.testing.assert_close(attention(student, teacher.repeat(1, 2, 1, 1)), losses)
    torch.testing.assert_close(attention(student, 3 * student), torch.zeros(3, dtype=torch.float64))
    assert float((attention(student.flip(2), teacher) - losses).abs().max()) > 1e-4


def test_attention_map_has_unit_length_and_the_largest_loss_is_two_over_the_positions() -> None:
    maps = attention_map(draw(3, 4, 5, 5))
    torch.testing.assert_close(maps.square().sum(1), torch.ones(3, dtype=torch.float64))
    apart = torch.zeros(2, 1, 1, 2, 2)
    apart[0, ..., 0, 0] = apart[1, ..., 1, 1] = 9.0
    torch.testing.assert_close(attention(apart[0], apart[1]), torch.tensor([2 / 4]))


def test_gradients_agree_with_differences_and_spare_the_teacher() -> None:
    student, teacher = draw(2, 3, 4, 4).requires_grad_(), draw(2, 3, 2, 2, seed=1).requires_grad_()
    torch.autograd.gradcheck(lambda s: attention(s, teacher.detach()), student)
    torch.autograd.gradcheck(lambda s: hint(s, teacher.detach()), student)
    (attention(student, teacher) + hint(student, teacher)).sum().backward()
    assert teacher.grad is None
    assert float(student.grad.abs().sum()) > 0.01


def test_a_dark_map_looks_nowhere_and_gets_no_gradient() -> None:
    student = torch.zeros(1, 2, 2, 2, requires_grad=True)
    loss = attention(student, torch.ones(1, 1, 2, 2))
    torch.testing.assert_close(loss.detach(), torch.tensor([0.25]))
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    torch.testing.assert_close(gradient, torch.zeros(1, 2, 2, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_at_large_activations_and_lifted(dtype: torch.dtype) -> None:
    student = (1e4 * torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        looked, regressed = attention(student, -student.flip(2)), hint(student, torch.zeros_like(student))
    assert looked.dtype == regressed.dtype == torch.float32
    torch.testing.assert_close(looked.detach(), torch.tensor([0.5]))
    torch.testing.assert_close(regressed.detach(), torch.tensor([2.5e7]), rtol=0.01, atol=0)
    (gradient,) = torch.autograd.grad((looked + 1e-6 * regressed).sum(), student)
    assert bool(gradient.isfinite().all())


def test_equal_sides_are_left_as_they_are() -> None:
    student, teacher = draw(2, 3, 4, 4), draw(2, 1, 4, 4)
    torch.testing.assert_close(match_sides(student, teacher), (student, teacher), rtol=0, atol=0)


def test_errors_name_both_shapes() -> None:
    with pytest.raises(
        ModelError, match=r"must be \[B, C, H, W\] of one batch, not \[2, 3\] and \[2, 3, 4, 4\]"
    ):
        attention(draw(2, 3), draw(2, 3, 4, 4))
    with pytest.raises(ModelError, match=r"one batch, not \[2, 3, 4, 4\] and \[3, 3, 4, 4\]"):
        match_sides(draw(2, 3, 4, 4), draw(3, 3, 4, 4))
    with pytest.raises(
        ModelError, match=r"as many channels, not \[2, 3, 2, 2\] and \[2, 5, 2, 2\]; a regressor"
    ):
        hint(draw(2, 3, 4, 4), draw(2, 5, 2, 2))
