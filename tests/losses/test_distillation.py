"""Distillation by logits, its decoupled parts and its correlations against loops, and their limits."""

import math

import pytest
import torch
from torch import Tensor

from lauter.errors import ConfigError, DataError, ModelError
from lauter.losses.distillation import dist, dkd, kd

LABELS = torch.tensor([0, 3, 1, 2, 3])


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


def dkd_by_loop(
    student: list[float], teacher: list[float], label: int, alpha: float, beta: float, temperature: float
) -> float:
    q, p = softmax_by_loop(student, temperature), softmax_by_loop(teacher, temperature)
    target = p[label] * math.log(p[label] / q[label])
    target += (1 - p[label]) * math.log((1 - p[label]) / (1 - q[label]))
    others = [k for k in range(len(p)) if k != label]
    q_others = softmax_by_loop([student[k] for k in others], temperature)
    p_others = softmax_by_loop([teacher[k] for k in others], temperature)
    among = sum(a * math.log(a / b) for a, b in zip(p_others, q_others, strict=True))
    return temperature**2 * (alpha * target + beta * among)


@pytest.mark.parametrize(
    ("alpha", "beta", "temperature"), [(1.0, 8.0, 4.0), (0.5, 0.0, 1.0), (0.0, 2.0, 2.0)]
)
def test_dkd_equals_the_loop(
    pair: tuple[Tensor, Tensor], alpha: float, beta: float, temperature: float
) -> None:
    student, teacher = pair
    rows = zip(student.tolist(), teacher.tolist(), LABELS.tolist(), strict=True)
    expected = [dkd_by_loop(s, t, y, alpha, beta, temperature) for s, t, y in rows]
    losses = dkd(student, teacher, LABELS, alpha=alpha, beta=beta, temperature=temperature)
    torch.testing.assert_close(losses.detach(), torch.tensor(expected, dtype=torch.float64))


def test_dkd_defaults_are_those_of_its_code(pair: tuple[Tensor, Tensor]) -> None:
    expected = dkd(*pair, LABELS, alpha=1.0, beta=8.0, temperature=4.0)
    torch.testing.assert_close(dkd(*pair, LABELS), expected)


def test_dkd_puts_kd_together_again(pair: tuple[Tensor, Tensor]) -> None:
    # Zhao et al., equation 5: KD = TCKD + (1 - p_y) NCKD.
    student, teacher = pair
    p = torch.tensor([softmax_by_loop(row, 4.0) for row in teacher.tolist()], dtype=torch.float64)
    rest = 1 - p.gather(1, LABELS[:, None]).squeeze(1)
    target = dkd(student, teacher, LABELS, alpha=1, beta=0)
    among = dkd(student, teacher, LABELS, alpha=0, beta=1)
    torch.testing.assert_close(target + rest * among, kd(student, teacher))


def test_dkd_gives_unlabelled_images_kd_at_the_weight_alpha(pair: tuple[Tensor, Tensor]) -> None:
    student, teacher = pair
    labels = torch.tensor([0, -1, 1, -1, 3])
    losses = dkd(student, teacher, labels, alpha=0.7)
    torch.testing.assert_close(losses[labels < 0], 0.7 * kd(student, teacher)[labels < 0])
    torch.testing.assert_close(losses[labels >= 0], dkd(student, teacher, LABELS, alpha=0.7)[labels >= 0])


def test_dkd_of_two_classes_has_nothing_among_the_others(pair: tuple[Tensor, Tensor]) -> None:
    student, teacher = (logits[:, :2] for logits in pair)
    labels = LABELS % 2
    torch.testing.assert_close(dkd(student, teacher, labels, beta=8.0), kd(student, teacher))


def correlation_by_loop(first: list[float], second: list[float]) -> float:
    first_mean, second_mean = sum(first) / len(first), sum(second) / len(second)
    joint = sum((a - first_mean) * (b - second_mean) for a, b in zip(first, second, strict=True))
    spread = sum((a - first_mean) ** 2 for a in first) * sum((b - second_mean) ** 2 for b in second)
    return joint / math.sqrt(spread)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_dist_equals_the_loop(pair: tuple[Tensor, Tensor], temperature: float) -> None:
    student, teacher = pair
    q = [softmax_by_loop(row, temperature) for row in student.tolist()]
    p = [softmax_by_loop(row, temperature) for row in teacher.tolist()]
    square = temperature**2
    rows = [square * (1 - correlation_by_loop(a, b)) for a, b in zip(q, p, strict=True)]
    classes = [([row[k] for row in q], [row[k] for row in p]) for k in range(4)]
    columns = [square * (1 - correlation_by_loop(*both)) for both in classes]
    inter, intra = dist(student, teacher, temperature)
    # The constant beside the norms, 1e-8, is left out of the loop: it moves results by 1e-6 here.
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(inter.detach(), torch.tensor(rows, dtype=torch.float64), **close)
    expected = torch.tensor(sum(columns) / len(columns), dtype=torch.float64)
    torch.testing.assert_close(intra.detach(), expected, **close)


def test_dist_ignores_what_kd_does_not(pair: tuple[Tensor, Tensor]) -> None:
    # Probabilities drawn half way to uniform keep every correlation, and so cost nothing.
    _, teacher = pair
    p = (teacher / 4).softmax(1)
    student = 4 * (0.5 * p + 0.5 / 4).log()
    inter, intra = dist(student, teacher)
    torch.testing.assert_close(inter, torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-4)
    torch.testing.assert_close(intra, torch.tensor(0.0, dtype=torch.float64), rtol=0, atol=1e-4)
    assert float(kd(student, teacher).min()) > 0.01


def test_dist_of_one_image_has_no_class_to_correlate(pair: tuple[Tensor, Tensor]) -> None:
    student, teacher = (logits[:1] for logits in pair)
    _, intra = dist(student, teacher)
    torch.testing.assert_close(intra.detach(), torch.tensor(16.0, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(intra, student)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_dist_leaves_a_student_without_opinion_alone() -> None:
    # Its probabilities differ by rounding only, which would otherwise pass for a direction to be turned.
    student = (7.3 * torch.ones(4, 10)).requires_grad_()
    inter, intra = dist(student, torch.randn(4, 10, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(inter.detach(), torch.full((4,), 16.0))
    torch.testing.assert_close(intra.detach(), torch.tensor(16.0))
    (gradient,) = torch.autograd.grad(inter.sum() + intra, student)
    torch.testing.assert_close(gradient, torch.zeros(4, 10))


def test_parts_and_correlations_spare_the_teacher_and_agree_with_differences(
    pair: tuple[Tensor, Tensor],
) -> None:
    student, teacher = pair
    labels = torch.tensor([0, -1, 1, 2, 3])
    torch.autograd.gradcheck(lambda s: dkd(s, teacher, labels), student)
    torch.autograd.gradcheck(lambda s: dist(s, teacher), student)
    teacher.requires_grad_()
    (dkd(student, teacher, labels).sum() + sum(part.sum() for part in dist(student, teacher))).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_parts_and_correlations_are_finite_at_large_logits_and_lifted(dtype: torch.dtype) -> None:
    student = torch.tensor([[1e4, -1e4, 0.0], [0.0, 1e4, 0.0], [0.0, 0.0, 0.0]], dtype=dtype).requires_grad_()
    teacher = torch.tensor([[-1e4, 1e4, 0.0], [0.0, 1e4, 0.0], [1e4, 0.0, 0.0]], dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        decoupled = dkd(student, teacher, torch.tensor([0, 1, -1]), temperature=1.0)
        inter, intra = dist(student, teacher, temperature=1.0)
    assert {decoupled.dtype, inter.dtype, intra.dtype} == {torch.float32}
    total = decoupled.sum() + inter.sum() + intra
    (gradient,) = torch.autograd.grad(total, student)
    assert bool(total.isfinite())
    assert bool(gradient.isfinite().all())
    # The teacher gives the label nothing: the rest costs -log(1 - q_y), 1e4 here. Among the rest it says 1
    # where the student says 2, again 1e4 apart, at the weight 8.
    wide = float(torch.tensor(1e4, dtype=dtype))
    torch.testing.assert_close(decoupled[:2].detach(), torch.tensor([9 * wide, 0.0]))


def test_errors_of_parts_and_correlations(pair: tuple[Tensor, Tensor]) -> None:
    student, teacher = pair
    for loss in (dkd, dist):
        arguments = (LABELS,) if loss is dkd else ()
        with pytest.raises(ModelError, match=r"student and teacher logits .*\[5, 4\] and \[5, 3\]"):
            loss(student, teacher[:, :3], *arguments)
        with pytest.raises(ConfigError, match="temperature must be positive and finite, not 0"):
            loss(student, teacher, *arguments, temperature=0.0)
    with pytest.raises(ModelError, match=r"labels must have shape \[5\] beside logits \[5, 4\], not \[4\]"):
        dkd(student, teacher, LABELS[:4])
    with pytest.raises(ModelError, match="needs 2 or more, not 1"):
        dkd(student[:, :1], teacher[:, :1], torch.zeros(5, dtype=torch.int64))
    with pytest.raises(DataError, match=r"one integer label for each image, not torch.float32"):
        dkd(student, teacher, torch.zeros(5))
    for wrong in (-2, 4):
        with pytest.raises(DataError, match=r"labels must be within -1..3 for 4 classes"):
            dkd(student, teacher, torch.tensor([0, 1, 2, 3, wrong]))
