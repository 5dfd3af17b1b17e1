"""Direction and norm, one without the other: ablations of feature mimicking, and the ND loss of KD++.

``cosine`` and ``norm_gap`` are the two parts of ``l2`` that ``geometry`` takes apart, under the names that
the losses of a student have.
"""

import math

import torch
from torch import Tensor

from lauter.losses.geometry import direction as cosine
from lauter.losses.geometry import magnitude as norm_gap
from lauter.losses.geometry import split_features
from lauter.losses.inputs import lift, require_pair

__all__ = ["cosine", "nd", "norm_gap"]


def nd(student: Tensor, teacher: Tensor, centers: Tensor) -> Tensor:
    r"""Norm and direction: a long feature along the centre of its class.

    .. math:: \ell_b = 1 - \frac{s_b \cdot e_b}{\max(\lVert s_b \rVert, \lVert t_b \rVert)},
              \qquad e_b = \frac{c_b}{\lVert c_b \rVert}

    While the student's norm is below the teacher's, both growing and turning lower the loss; from there on it
    is one minus a cosine and the norm is free.

    Args:
        student: [B, D] features in the teacher's space, gradient flows.
        teacher: [B, D] features, detached here.
        centers: [B, D] for each example the mean of the teacher's features over its class, detached here; of
            any length.

    Returns:
        [B] within [0, 2], float32 at least; 1 without gradient where the centre is zero, and where both
        features are.

    Raises:
        ModelError: the shapes differ; the message names both.

    Example:
        >>> center = torch.tensor([[2.0, 0.0]])
        >>> nd(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 4.0]]), center)
        tensor([0.7500])

    Source: Wang et al. (2023), arXiv 2305.17007, as in its authors' code. Departures: values instead of NaN
    for features and centres of length zero.
    """
    require_pair(student, teacher, "student and teacher features")
    require_pair(student, centers, "student features and class centres")
    student, teacher, centers = lift(student, teacher.detach(), centers.detach())
    longer = torch.maximum(torch.linalg.vector_norm(student, dim=1), torch.linalg.vector_norm(teacher, dim=1))
    along = (student * split_features(centers)[1]).sum(1)
    return 1 - along / longer.masked_fill(longer == 0, math.inf)
