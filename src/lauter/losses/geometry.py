"""Magnitude and direction of features: the two parts that feature mimicking tells apart."""

import math

import torch
from torch import Tensor

from lauter.losses.inputs import lift, require_pair

ZERO_NORM = 1e-18
"""Norm at or under which a feature counts as zero, without direction: its squares leave float32."""


def split_features(features: Tensor) -> tuple[Tensor, Tensor]:
    """Split features into magnitude and direction.

    Args:
        features: [B, D], gradient flows.

    Returns:
        Norms [B] and unit vectors [B, D]; a zero feature has the direction 0, and no gradient through it.
    """
    norm = torch.linalg.vector_norm(features, dim=1)
    # Dividing by infinity makes the direction of a zero feature and its gradient exactly 0; an epsilon would
    # make that gradient enormous.
    divisor = norm.masked_fill(norm <= ZERO_NORM, math.inf)
    return norm, features / divisor[:, None]


def cosine_gap(student_unit: Tensor, teacher_unit: Tensor) -> Tensor:
    """1 - cos of the angle between unit vectors [B, D], or 1 where one of them is zero; [B] within [0, 2].

    Half the squared distance keeps all digits at small angles, where 1 - cos would cancel.
    """
    absent = (student_unit == 0).all(1) | (teacher_unit == 0).all(1)
    half_square = 0.5 * (student_unit - teacher_unit).square().sum(1)
    return half_square.masked_fill(absent, 1.0)


def direction(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Direction-only term: one minus the cosine of the angle between the features.

    .. math:: \ell_b = 1 - \cos\theta_b = \tfrac12 \lVert s_b/\lVert s_b\rVert - t_b/\lVert t_b\rVert \rVert^2

    Args:
        student: [B, D] features, gradient flows.
        teacher: [B, D] features, detached here.

    Returns:
        [B] within [0, 2], float32 at least; 1 where a feature is zero; a zero student gets no gradient.

    Raises:
        ModelError: the shapes differ; the message names both.

    Example:
        >>> direction(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
        tensor([1.])

    Source: the cosine distance; the split of a feature into magnitude and direction is that of Wang, Ge and
    Wu (2021), arXiv 2011.01424.
    """
    require_pair(student, teacher, "student and teacher features")
    student, teacher = lift(student, teacher.detach())
    return cosine_gap(split_features(student)[1], split_features(teacher)[1])


def magnitude(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Norm-only term: squared difference of the features' norms, on the scale of ``l2``.

    .. math:: \ell_b = \frac{1}{D} (\lVert s_b \rVert - \lVert t_b \rVert)^2

    ``l2`` is exactly this term plus :math:`2 \lVert s_b \rVert \lVert t_b \rVert / D` times ``direction``.

    Args:
        student: [B, D] features, gradient flows.
        teacher: [B, D] features, detached here.

    Returns:
        [B], non-negative, in the features' unit squared, float32 at least.

    Raises:
        ModelError: the shapes differ; the message names both.

    Example:
        >>> magnitude(torch.tensor([[0.0, 3.0]]), torch.tensor([[1.0, 0.0]]))
        tensor([2.])

    Source: ours, as the complement of ``direction`` in ``l2``.
    """
    require_pair(student, teacher, "student and teacher features")
    student, teacher = lift(student, teacher.detach())
    gap: Tensor = torch.linalg.vector_norm(student, dim=1) - torch.linalg.vector_norm(teacher, dim=1)
    return gap.square() / student.shape[1]


@torch.no_grad()
def angle(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Angle between student and teacher features in degrees, for analysis.

    .. math:: \theta_b = 2\,\mathrm{atan2}(\lVert u - v \rVert, \lVert u + v \rVert),
              \quad u = s_b/\lVert s_b\rVert,\ v = t_b/\lVert t_b\rVert

    which is exact near 0 and 180 degrees, where the arc cosine is not.

    Args:
        student: [B, D] features.
        teacher: [B, D] features.

    Returns:
        [B] degrees within [0, 180], float32 at least, without gradient; 90 where a feature is zero (cos = 0).

    Raises:
        ModelError: the shapes differ; the message names both.

    Example:
        >>> angle(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
        tensor([90.])
    """
    require_pair(student, teacher, "student and teacher features")
    student, teacher = lift(student, teacher)
    (_, first), (_, second) = split_features(student), split_features(teacher)
    apart, together = (torch.linalg.vector_norm(v, dim=1) for v in (first - second, first + second))
    degrees = torch.rad2deg(2 * torch.atan2(apart, together))
    return degrees.masked_fill((first == 0).all(1) | (second == 0).all(1), 90.0)


@torch.no_grad()
def norm_ratio(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Norm of the student's feature over that of the teacher's, for analysis.

    .. math:: \rho_b = \lVert s_b \rVert / \max(\lVert t_b \rVert, 10^{-18})

    Args:
        student: [B, D] features.
        teacher: [B, D] features.

    Returns:
        [B], non-negative, without unit, float32 at least, without gradient.

    Raises:
        ModelError: the shapes differ; the message names both.

    Example:
        >>> norm_ratio(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]]))
        tensor([2.5000])
    """
    require_pair(student, teacher, "student and teacher features")
    student, teacher = lift(student, teacher)
    student_norm, teacher_norm = (
        torch.linalg.vector_norm(features, dim=1) for features in (student, teacher)
    )
    ratio: Tensor = student_norm / teacher_norm.clamp_min(ZERO_NORM)
    return ratio
