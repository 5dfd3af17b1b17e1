"""Contrast with a memory against the paper's formula in loops, with its constants spelt out."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lauter.errors import ConfigError, ModelError
from lauter.losses.crd import memory_contrast, move_memory

UNKNOWN = torch.tensor(float("nan"))


@pytest.fixture
def pairs() -> tuple[Tensor, Tensor, Tensor]:
    """Anchors [3, 4], a memory [7, 4] that is not at unit length, and rows [3, 6], some drawn twice."""
    generator = torch.Generator().manual_seed(0)
    anchors = F.normalize(torch.randn(3, 4, generator=generator, dtype=torch.float64))
    memory = torch.rand(7, 4, generator=generator, dtype=torch.float64) - 0.5
    rows = torch.randint(7, (3, 6), generator=generator)
    rows[:, 4] = rows[:, 3]
    return anchors.requires_grad_(), memory, rows


def contrast_by_loop(
    anchors: Tensor, memory: Tensor, rows: Tensor, temperature: float, mean: float | None
) -> tuple[list[float], float]:
    """The paper's critic and its loss; Z is N times the mean of the first step, as in its public code."""
    size, negatives = len(memory), rows.shape[1] - 1
    exponentials = [
        [
            math.exp(sum(a * m for a, m in zip(anchor, memory[row].tolist(), strict=True)) / temperature)
            for row in drawn
        ]
        for anchor, drawn in zip(anchors.tolist(), rows.tolist(), strict=True)
    ]
    if mean is None:
        mean = sum(map(sum, exponentials)) / (len(exponentials) * len(exponentials[0]))
    constant, noise = size * mean, negatives / size
    losses = []
    for values in exponentials:
        loss = -math.log(values[0] / constant / (values[0] / constant + noise))
        for value in values[1:]:
            loss -= math.log(noise / (value / constant + noise))
        losses.append(loss)
    return losses, mean


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("mean", [None, 0.3, 12.0])
def test_contrast_equals_the_loop(
    pairs: tuple[Tensor, Tensor, Tensor], temperature: float, mean: float | None
) -> None:
    expected, constant = contrast_by_loop(*pairs, temperature, mean)
    known = UNKNOWN if mean is None else torch.tensor(mean, dtype=torch.float64).log()
    losses, log_mean = memory_contrast(*pairs, known, temperature=temperature)
    torch.testing.assert_close(losses.detach(), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(log_mean, torch.tensor(constant, dtype=torch.float64).log())


def test_gradient_agrees_with_differences(pairs: tuple[Tensor, Tensor, Tensor]) -> None:
    anchors, memory, rows = pairs
    known = torch.tensor(0.2, dtype=torch.float64)
    torch.autograd.gradcheck(lambda a: memory_contrast(a, memory, rows, known, temperature=0.1)[0], anchors)


def test_nothing_but_the_anchors_gets_a_gradient(pairs: tuple[Tensor, Tensor, Tensor]) -> None:
    anchors, memory, rows = pairs
    memory.requires_grad_()
    known = torch.tensor(0.2, requires_grad=True)
    losses, log_mean = memory_contrast(anchors, memory, rows, known)
    losses.sum().backward()
    assert memory.grad is None
    assert known.grad is None
    assert not log_mean.requires_grad
    with torch.no_grad():
        assert not memory_contrast(anchors, memory, rows, known)[0].requires_grad


def test_the_memory_may_change_before_the_backward_pass(pairs: tuple[Tensor, Tensor, Tensor]) -> None:
    anchors, memory, rows = pairs
    (expected,) = torch.autograd.grad(memory_contrast(anchors, memory, rows, UNKNOWN)[0].sum(), anchors)
    losses, _ = memory_contrast(anchors, memory, rows, UNKNOWN)
    memory.zero_()
    (gradient,) = torch.autograd.grad(losses.sum(), anchors)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=0)
    assert float(gradient.abs().max()) > 0.01


def test_the_loss_falls_towards_the_positive_and_away_from_negatives() -> None:
    memory, rows, known = torch.eye(3), torch.tensor([[0, 1, 2]]), torch.tensor(0.0)
    losses = [
        float(memory_contrast(F.normalize(torch.tensor([side])), memory, rows, known, temperature=0.2)[0])
        for side in ([1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0])
    ]
    assert losses[0] < losses[1] < losses[2]


def test_the_critic_is_the_posterior_of_one_true_pair_among_k() -> None:
    # All similarities equal the mean of the first step: h = 1 / (1 + K), whatever N is.
    for size in (4, 50):
        anchors, memory = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.3, 0.5]]).repeat(size, 1)
        losses, _ = memory_contrast(anchors, memory, torch.tensor([[0, 1, 2, 3]]), UNKNOWN)
        torch.testing.assert_close(losses, torch.tensor([math.log(4) + 3 * math.log(4 / 3)]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_at_the_smallest_temperature_and_lifted(dtype: torch.dtype) -> None:
    anchors = torch.eye(3).to(dtype).requires_grad_()
    memory, rows = -torch.eye(3), torch.tensor([[0, 1], [1, 2], [2, 0]])
    with torch.autocast("cpu", torch.bfloat16):
        losses, log_mean = memory_contrast(anchors, memory, rows, UNKNOWN, temperature=1e-4)
    assert losses.dtype == log_mean.dtype == torch.float32
    # Scores are -10,000 and 0, and half of the pairs have each: log a = -ln 2.
    torch.testing.assert_close(log_mean, torch.tensor(-math.log(2)))
    torch.testing.assert_close(losses.detach(), torch.full((3,), 1e4 - math.log(2) + math.log(3)))
    (gradient,) = torch.autograd.grad(losses.sum(), anchors)
    assert bool(gradient.isfinite().all())


def test_autocast_does_not_touch_the_similarities(pairs: tuple[Tensor, Tensor, Tensor]) -> None:
    anchors, memory, rows = pairs[0].detach().float(), pairs[1].float(), pairs[2]
    plain = memory_contrast(anchors, memory, rows, UNKNOWN)
    with torch.autocast("cpu", torch.bfloat16):
        cast = memory_contrast(anchors, memory, rows, UNKNOWN)
    torch.testing.assert_close(cast, plain, rtol=0, atol=0)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_memory_moves_as_the_loop(momentum: float) -> None:
    generator = torch.Generator().manual_seed(1)
    remembered, vectors = (torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = []
    for old, new in zip(remembered.tolist(), vectors.tolist(), strict=True):
        mixed = [momentum * o + (1 - momentum) * n for o, n in zip(old, new, strict=True)]
        expected.append([value / math.hypot(*mixed) for value in mixed])
    moved = move_memory(remembered, vectors.requires_grad_(), momentum=momentum)
    torch.testing.assert_close(moved, torch.tensor(expected, dtype=torch.float64))
    assert not moved.requires_grad


def test_opposite_vectors_leave_zero_and_not_nan() -> None:
    moved = move_memory(torch.tensor([[0.6, 0.8]]), torch.tensor([[-0.6, -0.8]]))
    torch.testing.assert_close(moved, torch.zeros(1, 2))


def test_errors(pairs: tuple[Tensor, Tensor, Tensor]) -> None:
    anchors, memory, rows = pairs
    with pytest.raises(ModelError, match=r"must be of one width, not \[3, 4\] and \[7, 3\]"):
        memory_contrast(anchors, memory[:, :3], rows, UNKNOWN)
    with pytest.raises(
        ModelError, match=r"rows must be \[B, 1 \+ K\] with a negative at least, not \[3, 1\]"
    ):
        memory_contrast(anchors, memory, rows[:, :1], UNKNOWN)
    with pytest.raises(
        ModelError, match=r"rows must have shape \[3, 6\] beside anchors \[3, 4\], not \[2, 6\]"
    ):
        memory_contrast(anchors, memory, rows[:2], UNKNOWN)
    with pytest.raises(ConfigError, match="temperature must be positive and finite, not 0"):
        memory_contrast(anchors, memory, rows, UNKNOWN, temperature=0.0)
    with pytest.raises(ModelError, match=r"remembered and new vectors .*\[7, 4\] and \[3, 4\]"):
        move_memory(memory, anchors)
    for momentum in (-0.1, 1.0):
        with pytest.raises(ConfigError, match=r"momentum must be in \[0, 1\), not"):
            move_memory(memory, memory, momentum=momentum)
