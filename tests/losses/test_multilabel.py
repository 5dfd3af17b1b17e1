"""Binary cross-entropy with unknown labels: formula, gradient, limits, bad inputs."""

import math

import pytest
import torch

from lauter.errors import DataError, ModelError
from lauter.losses.multilabel import binary_cross_entropy


def reference(logits: torch.Tensor, targets: torch.Tensor) -> list[float]:
    values = []
    for row, wanted in zip(logits.tolist(), targets.tolist(), strict=True):
        parts = []
        for x, y in zip(row, wanted, strict=True):
            if y >= 0:
                p = 1 / (1 + math.exp(-x))
                parts.append(-math.log(p) if y == 1 else -math.log(1 - p))
        values.append(sum(parts) / len(parts) if parts else 0.0)
    return values


def draw(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(16, 5, generator=generator, dtype=dtype)
    targets = torch.randint(-1, 2, (16, 5), generator=generator).to(torch.int8)
    targets[3] = -1
    return logits, targets


def test_it_is_the_mean_over_what_is_known() -> None:
    logits, targets = draw()
    expected = torch.tensor(reference(logits, targets), dtype=torch.float64)
    torch.testing.assert_close(binary_cross_entropy(logits, targets), expected)


def test_its_gradient_is_the_gap_of_probability_and_target() -> None:
    logits, targets = draw()
    logits.requires_grad_()
    binary_cross_entropy(logits, targets).sum().backward()
    known = targets >= 0
    gap = (logits.detach().sigmoid() - targets.double()) * known
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, gap / known.sum(1, keepdim=True).clamp(min=1))


def test_swapping_present_and_absent_negates_the_logits() -> None:
    logits, targets = draw()
    swapped = torch.where(targets >= 0, 1 - targets, targets)
    torch.testing.assert_close(binary_cross_entropy(-logits, swapped), binary_cross_entropy(logits, targets))


def test_it_is_finite_at_large_logits_and_lifts_half_precision() -> None:
    logits = torch.tensor([[1e4, -1e4, 1e4]])
    values = binary_cross_entropy(logits, torch.tensor([[1, 0, 0]]))
    torch.testing.assert_close(values, torch.tensor([1e4 / 3]))
    assert binary_cross_entropy(logits.bfloat16(), torch.tensor([[1, 0, -1]])).dtype == torch.float32


def test_bad_inputs_are_named() -> None:
    with pytest.raises(ModelError, match=r"logits must be \[B, K\], not \[3\]"):
        binary_cross_entropy(torch.zeros(3), torch.zeros(3, dtype=torch.int8))
    with pytest.raises(ModelError, match=r"targets must have shape \[2, 3\]"):
        binary_cross_entropy(torch.zeros(2, 3), torch.zeros(2, 2, dtype=torch.int8))
    with pytest.raises(DataError, match=r"not torch\.float32"):
        binary_cross_entropy(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(DataError, match=r"found 0\.\.2"):
        binary_cross_entropy(torch.zeros(1, 2), torch.tensor([[0, 2]]))
