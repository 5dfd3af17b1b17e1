"""The minimum of a smooth convex function, where one look at it costs a pass over all features."""

import math
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from lauter.noisy.neighbours import Report

Evaluate = Callable[[Tensor], tuple[float, Tensor]]
"""Gives value and gradient at a point."""

_MEMORY = 10  # steps that L-BFGS remembers


def minimise(
    evaluate: Evaluate, start: Tensor, steps: int, tolerance: float, report: Report | None = None
) -> Tensor:
    """Find the minimum of a smooth convex function by L-BFGS with backtracking.

    The first step is the negative gradient whole: the function is expected to be scaled so that its Hessian
    is about the identity.

    Args:
        evaluate: gives value and gradient.
        start: where to begin.
        steps: how many at most.
        tolerance: relative gain in one step at which it ends.
        report: called after each step.

    Returns:
        The lowest point that was met.

    Source: Liu and Nocedal (1989), two-loop recursion; backtracking after Armijo (1966).
    """
    point = start
    value, slope = evaluate(point)
    past: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=_MEMORY)
    for number in range(steps):
        direction = _find_direction(slope, past)
        falls = _dot(slope, direction)
        length = 1.0
        while True:
            trial = point + length * direction
            reached, ahead = evaluate(trial)
            if math.isfinite(reached) and reached <= value + 1e-4 * length * falls:
                break
            length /= 2
            if length < 1e-4:
                return point
        change, turn = trial - point, ahead - slope
        bend = _dot(change, turn)
        if bend > 1e-12:
            past.append((change, turn, bend))
        gained = value - reached
        point, value, slope = trial, reached, ahead
        if report is not None:
            report("heads", (number + 1) / steps)
        if gained <= tolerance * abs(value):
            break
    return point


def _find_direction(slope: Tensor, past: deque[tuple[Tensor, Tensor, float]]) -> Tensor:
    """Minus the inverse Hessian, as the last steps show it, times the gradient."""
    direction = -slope
    pulls = []
    for change, turn, bend in reversed(past):
        pull = _dot(change, direction) / bend
        direction = direction - pull * turn
        pulls.append(pull)
    if past:
        _, turn, bend = past[-1]
        direction = direction * (bend / _dot(turn, turn))
    for (change, turn, bend), pull in zip(past, reversed(pulls), strict=True):
        direction = direction + (pull - _dot(turn, direction) / bend) * change
    return direction


def _dot(first: Tensor, second: Tensor) -> float:
    return float((first * second).sum(dtype=torch.float64))
