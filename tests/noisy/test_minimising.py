import pytest
import torch
from torch import Tensor

from lauter.noisy.minimising import minimise


def test_a_quadratic_is_solved() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(8, 8, generator=generator, dtype=torch.float64)
    bend, pull = root @ root.T + torch.eye(8), torch.randn(8, generator=generator, dtype=torch.float64)

    def evaluate(point: Tensor) -> tuple[float, Tensor]:
        return float(0.5 * point @ bend @ point - pull @ point), bend @ point - pull

    found = minimise(evaluate, torch.zeros(8, dtype=torch.float64), 200, 0.0)
    torch.testing.assert_close(found, torch.linalg.solve(bend, pull), atol=1e-6, rtol=1e-6)


def test_every_step_goes_down_and_their_number_is_kept() -> None:
    values, told = [], []

    def evaluate(point: Tensor) -> tuple[float, Tensor]:
        value = float((point**4).sum() + point.abs().sum().square())
        slope = 4 * point**3 + 2 * point.abs().sum() * point.sign()
        return value, slope

    found = minimise(evaluate, torch.full((3,), 4.0), 5, 0.0, lambda part, done: told.append((part, done)))
    values = [evaluate(torch.full((3,), 4.0))[0], evaluate(found)[0]]
    assert values[1] < values[0]
    assert told == [("heads", pytest.approx((n + 1) / 5)) for n in range(len(told))]
    assert len(told) <= 5


def test_it_ends_where_nothing_is_gained() -> None:
    asked = 0

    def evaluate(point: Tensor) -> tuple[float, Tensor]:
        nonlocal asked
        asked += 1
        return 1 + 0.5 * float(point @ point), point

    found = minimise(evaluate, torch.tensor([2.0, -1.0]), 1000, 1e-6)
    torch.testing.assert_close(found, torch.zeros(2))
    assert asked < 10
