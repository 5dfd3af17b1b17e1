"""Distillation by relations: how the images of a batch lie to each other, not where each of them lies.

Student and teacher may have features of different widths, so no embedding is needed. Every loss here is one
of the whole batch: a scalar.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lauter.errors import ModelError
from lauter.losses.geometry import split_features
from lauter.losses.inputs import lift, no_autocast

PKT_EPSILON = 1e-7
"""Beside both probabilities in the logarithm of ``pkt``, as in its authors' code."""


def sp(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Similarity preservation: the batch's matrix of inner products, its rows at unit length.

    .. math:: \ell = \frac{1}{B^2} \lVert \hat G_s - \hat G_t \rVert_F^2, \qquad
              \hat G_{i \cdot} = \frac{G_{i \cdot}}{\lVert G_{i \cdot} \rVert}, \quad G = F F^\top

    Args:
        student: [B, D_s] features, or maps flattened to such rows; gradient flows.
        teacher: [B, D_t], detached here.

    Returns:
        A scalar, non-negative, without unit, float32 at least whatever the autocast.

    Raises:
        ModelError: one is not a matrix or they are not of the same images; the message names both shapes.

    Example:
        >>> sp(torch.eye(2), torch.eye(2, 5))
        tensor(0.)

    Source: Tung and Mori (2019), arXiv 1907.09682. Departures: none.
    """
    student, teacher = _prepare(student, teacher)
    with no_autocast(student):
        rows, wanted = (split_features(features @ features.T)[1] for features in (student, teacher))
    return (rows - wanted).square().mean()


def pkt(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Probabilistic transfer: for each image, the distribution of its neighbours in the batch.

    .. math:: \ell = \frac{1}{B^2} \sum_{ij} p_{ij} \log \frac{p_{ij} + \varepsilon}{q_{ij} + \varepsilon},
              \qquad p_{ij} = \frac{1 + \cos(t_i, t_j)}{\sum_k 1 + \cos(t_i, t_k)}

    with q the same of the student and epsilon 1e-7. A zero feature has the cosine 0 with all.

    Args:
        student: [B, D_s] features, gradient flows.
        teacher: [B, D_t] features, detached here.

    Returns:
        A scalar, non-negative up to epsilon, in nats, float32 at least whatever the autocast. It falls as
        1 / B: the usual weight, for batches of 64, is 30000.

    Raises:
        ModelError: one is not a matrix or they are not of the same images; the message names both shapes.

    Example:
        >>> pkt(torch.eye(2), torch.eye(2, 5))
        tensor(0.)

    Source: Passalis and Tefas (2018), arXiv 1803.10837. Departures from the paper, as in its authors' code:
    an image is among its own neighbours, and the sum is divided by B^2.
    """
    student, teacher = _prepare(student, teacher)
    with no_autocast(student):
        q, p = (_share_neighbours(features) for features in (student, teacher))
    return (p * ((p + PKT_EPSILON) / (q + PKT_EPSILON)).log()).mean()


def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Relational distillation of distances, in units of their mean.

    .. math:: \ell = \frac{1}{B^2} \sum_{ij} h\Big( \frac{\lVert s_i - s_j \rVert}{\mu_s}
              - \frac{\lVert t_i - t_j \rVert}{\mu_t} \Big), \qquad
              h(x) = \begin{cases} x^2 / 2 & |x| \le 1 \\ |x| - 1/2 & \text{else} \end{cases}

    with mu the mean of the distances that are not zero.

    Args:
        student: [B, D_s] features, gradient flows.
        teacher: [B, D_t] features, detached here.

    Returns:
        A scalar, non-negative, without unit, float32 at least whatever the autocast; 0 for a single image.

    Raises:
        ModelError: one is not a matrix or they are not of the same images; the message names both shapes.

    Example:
        >>> rkd_distance(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor(0.)

    Source: Park et al. (2019), arXiv 1904.05068. As in the public code, the mean is over all pairs (i, j), an
    image with itself among them.
    """
    student, teacher = _prepare(student, teacher)
    scaled, wanted = (_scale_to_mean(_measure_distances(features)) for features in (student, teacher))
    return F.smooth_l1_loss(scaled, wanted)


def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Relational distillation of angles: the cosine at every image between every two others.

    .. math:: \ell = \frac{1}{B^3} \sum_{jik} h\big( \cos\angle(s_i, s_j, s_k) -
              \cos\angle(t_i, t_j, t_k) \big), \qquad
              \cos\angle(x_i, x_j, x_k) = \frac{(x_i - x_j) \cdot (x_k - x_j)}
              {\lVert x_i - x_j \rVert \lVert x_k - x_j \rVert}

    with h as in ``rkd_distance``. An angle with a side of length zero counts as a right one.

    Args:
        student: [B, D_s] features, gradient flows.
        teacher: [B, D_t] features, detached here.

    Returns:
        A scalar, non-negative, without unit, float32 at least whatever the autocast. It takes a few tensors
        of size [B, B, B], whatever the widths.

    Raises:
        ModelError: one is not a matrix or they are not of the same images; the message names both shapes.

    Example:
        >>> corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> rkd_angle(3 * corner, corner + 5).round(decimals=6)
        tensor(0.)

    Source: Park et al. (2019), arXiv 1904.05068. As in the public code, the mean is over all triples, those
    with an image twice among them.
    """
    student, teacher = _prepare(student, teacher)
    return F.smooth_l1_loss(_measure_angles(student), _measure_angles(teacher))


def _prepare(student: Tensor, teacher: Tensor) -> list[Tensor]:
    """Check that two matrices have a row for each image, lift them and detach the teacher's."""
    if student.ndim != 2 or teacher.ndim != 2 or len(student) != len(teacher):
        raise ModelError(
            "relations need features [B, D] of the same images from student and teacher, not "
            f"{list(student.shape)} and {list(teacher.shape)}; flatten maps to one row for each image"
        )
    return lift(student, teacher.detach())


def _share_neighbours(features: Tensor) -> Tensor:
    """Cosines [B, B], moved to 0..1 and scaled to rows of sum 1."""
    units = split_features(features)[1]
    nearness = (0.5 + 0.5 * units @ units.T).clamp(min=0)  # rounding may leave -1e-8
    return nearness / nearness.sum(1, keepdim=True)


def _measure_distances(features: Tensor) -> Tensor:
    """Euclidean distances [B, B], from differences: |x|^2 + |y|^2 - 2 xy loses the small ones."""
    return torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")


def _scale_to_mean(distances: Tensor) -> Tensor:
    """Distances in units of the mean of those that are not zero; all zero stay so."""
    mean = distances.sum() / (distances > 0).sum().clamp(min=1)
    return distances / mean.masked_fill(mean == 0, math.inf)


def _measure_angles(features: Tensor) -> Tensor:
    """Cosines [B, B, B]: at image j (the first axis), between i and k; 0 where a side has no length.

    (x_i - x_j).(x_k - x_j) is put together from inner products, which costs B^2 D and B^3 in place of the
    B^3 D of the differences themselves. Centred, so that what cancels is no larger than the batch is wide.
    """
    distances = _measure_distances(features)
    inverse = 1 / distances.masked_fill(distances == 0, math.inf)
    centred = features - features.mean(0)
    with no_autocast(features):
        inner = centred @ centred.T
    at_anchor = inner.diagonal()[:, None] - inner  # [j, k]: x_j.x_j - x_j.x_k
    sides = inner + at_anchor[:, None, :] - inner[:, :, None]  # [j, i, k]
    cosines = sides * inverse[:, :, None] * inverse[:, None, :]
    # A side with itself has the cosine 1; for two near images alone, cancellation would not leave that.
    cosines.diagonal(dim1=1, dim2=2).copy_(distances > 0)
    return cosines
