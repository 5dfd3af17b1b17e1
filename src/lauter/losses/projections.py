"""Regression of the raw projections that LSH would hash: what taking their sign is worth, as an ablation."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lauter.losses.gradient import attach_gradient, wants_gradient
from lauter.losses.hashing import require_hashes
from lauter.losses.inputs import lift, no_autocast, require_pair


def projection_l1(student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    r"""Mean absolute difference of the projections of student and teacher.

    .. math:: \ell_b = \frac1N \sum_j \lvert (w_j \cdot s_b + b_j) - (w_j \cdot t_b + b_j) \rvert
              = \frac1N \sum_j \lvert w_j \cdot (s_b - t_b) \rvert

    With W's entries Normal(0, std^2) it tends, for many hashes, to :math:`\mathrm{std} \sqrt{2/\pi}\, \lVert
    s_b - t_b \rVert`. The gradient is computed beside the value, so nothing of size [B, N] outlives the call.

    Args:
        student: [B, D] features, gradient flows; first order only.
        teacher: [B, D] features, detached here.
        weight: [N, D] frozen hash weights, no gradient.
        bias: [N] frozen bias of the hashes; it cancels, and only its shape is checked.

    Returns:
        [B], non-negative, in the unit of the projections, float32 at least whatever the autocast.

    Raises:
        ModelError: the shapes do not fit; the message names them.

    Example:
        >>> projection_l1(torch.zeros(1, 2), torch.tensor([[1.0, -2.0]]), torch.eye(2), torch.zeros(2))
        tensor([1.5000])

    Source: ours, as an ablation of the LSH loss of Wang, Ge and Wu (2021), arXiv 2011.01424.
    """
    return _regress(student, teacher, weight, bias, torch.abs, torch.sign)


def projection_l2(student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    r"""Mean squared difference of the projections of student and teacher.

    .. math:: \ell_b = \frac1N \sum_j \big( w_j \cdot (s_b - t_b) \big)^2

    With W's entries Normal(0, std^2) it tends, for many hashes, to :math:`\mathrm{std}^2 \lVert s_b - t_b
    \rVert^2`, which is std^2 D times ``l2``. Memory as in ``projection_l1``.

    Args:
        student: [B, D] features, gradient flows; first order only.
        teacher: [B, D] features, detached here.
        weight: [N, D] frozen hash weights, no gradient.
        bias: [N] frozen bias of the hashes; it cancels, and only its shape is checked.

    Returns:
        [B], non-negative, in the unit of the projections squared, float32 at least whatever the autocast.

    Raises:
        ModelError: the shapes do not fit; the message names them.

    Example:
        >>> projection_l2(torch.zeros(1, 2), torch.tensor([[1.0, -2.0]]), torch.eye(2), torch.zeros(2))
        tensor([2.5000])

    Source: ours, as an ablation of the LSH loss of Wang, Ge and Wu (2021), arXiv 2011.01424.
    """
    return _regress(student, teacher, weight, bias, torch.square, lambda gaps: 2 * gaps)


def _regress(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    bias: Tensor,
    penalise: Callable[[Tensor], Tensor],
    differentiate: Callable[[Tensor], Tensor],
) -> Tensor:
    """Mean penalty of the gaps between projections, with its gradient; the penalty is of one gap."""
    require_pair(student, teacher, "student and teacher features")
    require_hashes(student, weight, bias)
    with no_autocast(student):
        student, teacher, weight = lift(student, teacher.detach(), weight.detach())
        with torch.no_grad():
            gaps = F.linear(student - teacher, weight)
            value = penalise(gaps).mean(1)
        if not wants_gradient(student):
            return value
        with torch.no_grad():
            gradient = differentiate(gaps) @ weight / len(weight)
        return attach_gradient(student, value, gradient)
