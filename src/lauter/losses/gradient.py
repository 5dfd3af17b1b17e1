"""A value whose gradient is already known: computed beside it, in the forward pass."""

from typing import Any, cast

import torch
from torch import Tensor


class _KnownGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        # Under create_graph=True the known gradient would pass for a constant, and once_differentiable
        # notices only where the outer gradient has a graph. A compiled backward pass never creates one.
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError(
                "this loss has a first derivative only, but backward was called with create_graph=True;"
                " leave it out of second-order terms such as gradient penalties"
            )
        (gradient,) = ctx.saved_tensors
        return outer[:, None] * gradient, None, None


def wants_gradient(student: Tensor) -> bool:
    """Whether a gradient for ``student`` is worth computing now."""
    return torch.is_grad_enabled() and student.requires_grad


def attach_gradient(student: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    """Give values [B] the gradient [B, D] with respect to ``student`` [B, D]; first order only.

    Between the forward and the backward pass it keeps [B, D] alive, whatever it took to compute the two.

    Args:
        student: [B, D], the tensor that the values depend on.
        value: [B], without a graph.
        gradient: [B, D], d value[b] / d student[b], without a graph.

    Returns:
        [B], equal to ``value``. Its backward pass raises RuntimeError under ``create_graph=True``.
    """
    return cast(Tensor, _KnownGradient.apply(student, value, gradient))
