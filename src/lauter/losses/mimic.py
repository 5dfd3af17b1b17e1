"""Feature mimicking: L2, LSH and LSHL2 between penultimate features of a student and its teacher.

The one door to feature mimicking: the hashes, the closed form and the geometry of features live in their own
modules and can be imported from here.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lauter.errors import ModelError
from lauter.losses.closed_form import lsh_expected, optimal_radius
from lauter.losses.geometry import angle, direction, magnitude, norm_ratio
from lauter.losses.gradient import attach_gradient, wants_gradient
from lauter.losses.hashing import (
    draw_hash_weights,
    hash_bias,
    hash_bits,
    require_hashes,
    std_from_classifier,
    std_from_features,
)
from lauter.losses.inputs import lift, no_autocast, require_pair, require_shape

__all__ = [
    "angle",
    "direction",
    "draw_hash_weights",
    "hash_bias",
    "hash_bits",
    "l2",
    "lsh",
    "lsh_expected",
    "lsh_from_bits",
    "lshl2",
    "magnitude",
    "mean_over_correct",
    "norm_ratio",
    "optimal_radius",
    "std_from_classifier",
    "std_from_features",
]


def l2(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean squared distance between student and teacher features.

    .. math:: \ell_b = \frac{1}{D} \sum_d (s_{bd} - t_{bd})^2

    Args:
        student: [B, D] features, gradient flows.
        teacher: [B, D] features, detached here.

    Returns:
        [B], non-negative, in the features' unit squared, float32 at least.

    Raises:
        ModelError: the shapes differ; the message names both.

    Example:
        >>> l2(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]]))
        tensor([2.])

    Source: Wang, Ge and Wu (2021), arXiv 2011.01424. Departures: none.
    """
    require_pair(student, teacher, "student and teacher features")
    student, teacher = lift(student, teacher.detach())
    return (student - teacher).square().mean(1)


def lsh_from_bits(
    student: Tensor, bits: Tensor, weight: Tensor, bias: Tensor, *, half_weight: Tensor | None = None
) -> Tensor:
    r"""LSH loss against hash bits of the teacher that are already there, from a bank say.

    .. math:: \ell_b = \frac1N \sum_j \log(1 + e^{z_{bj}}) - h_{bj} z_{bj}, \quad z_{bj} = w_j \cdot s_b + b_j

    .. math:: \nabla_s \ell_b = \frac1N \sum_j (\sigma(z_{bj}) - h_{bj}) w_j

    The gradient is computed beside the value, so nothing of size [B, N] outlives the call.

    Args:
        student: [B, D] features, gradient flows; first order only.
        bits: [B, N] hash bits of the teacher, bool or 0 and 1; see ``hash_bits``.
        weight: [N, D] frozen hash weights, no gradient.
        bias: [N] frozen bias of the hashes, no gradient.
        half_weight: [N, D] the same weights in bfloat16. Where given, both products run in that precision,
            which is what half of this loss costs on a processor; all else stays float32. Without it autocast
            changes nothing.

    Returns:
        [B], non-negative, in nats per hash, float32 at least whatever the autocast.

    Raises:
        ModelError: the shapes do not fit; the message names them.

    Example:
        >>> lsh_from_bits(torch.zeros(1, 2), torch.tensor([[True, False]]), torch.eye(2), torch.zeros(2))
        tensor([0.6931])

    Source: Wang, Ge and Wu (2021), arXiv 2011.01424. Departures: none.
    """
    require_hashes(student, weight, bias)
    require_shape(bits, (len(student), len(weight)), "the teacher's bits", f"features {list(student.shape)}")
    if half_weight is not None:
        require_shape(half_weight, tuple(weight.shape), "half_weight", f"weight {list(weight.shape)}")
    with no_autocast(student):
        student, weight, bias = lift(student, weight.detach(), bias.detach())
        factor = weight if half_weight is None else half_weight
        with torch.no_grad():
            targets = bits.to(student.dtype)
            logits = F.linear(student.to(factor.dtype), factor).to(student.dtype).add_(bias)
            # Per hash, relu(z) - h z + log(1 + exp(-|z|)): cross-entropy in its stable form. The last part is
            # taken as -log(sigmoid(|z|)), since CPUs vectorise that and not log1p, half of the time here.
            value = logits.relu().addcmul_(targets, logits, value=-1)
            value = value.sub_(logits.abs().sigmoid_().log_()).mean(1)
        if not wants_gradient(student):
            return value
        with torch.no_grad():
            errors = logits.sigmoid_().sub_(targets).to(factor.dtype)
            gradient = (errors @ factor).to(student.dtype) / len(weight)
        return attach_gradient(student, value, gradient)


def lsh(student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    r"""LSH loss: cross-entropy of the student's hash logits against the teacher's hash bits.

    .. math:: \ell_b = \frac1N \sum_j \mathrm{BCE}\big(\sigma(w_j \cdot s_b + b_j),\,
              [\, w_j \cdot t_b + b_j > 0 \,]\big)

    It pulls the student's direction to the teacher's and leaves its norm nearly free: without bias, the
    teacher's norm does not enter at all. ``lsh_expected`` is its limit for many hashes.

    Args:
        student: [B, D] features, gradient flows; first order only.
        teacher: [B, D] features, no gradient.
        weight: [N, D] frozen hash weights, no gradient; see ``draw_hash_weights``.
        bias: [N] frozen bias of the hashes, no gradient; see ``hash_bias``.

    Returns:
        [B], non-negative, in nats per hash, float32 at least whatever the autocast; ln 2 for a zero student
        without bias.

    Raises:
        ModelError: the shapes do not fit; the message names them.

    Example:
        >>> lsh(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 2.0]]), torch.eye(2), torch.zeros(2))
        tensor([0.6931])

    Source: Wang, Ge and Wu (2021), arXiv 2011.01424. Departures: none.
    """
    require_pair(student, teacher, "student and teacher features")
    return lsh_from_bits(student, hash_bits(teacher, weight, bias), weight, bias)


def lshl2(student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    r"""The sum of ``l2`` and ``lsh`` with unit weights.

    Args:
        student: [B, D] features, gradient flows; first order only.
        teacher: [B, D] features, no gradient.
        weight: [N, D] frozen hash weights, no gradient.
        bias: [N] frozen bias of the hashes, no gradient.

    Returns:
        [B], non-negative, float32 at least whatever the autocast.

    Raises:
        ModelError: the shapes do not fit; the message names them.

    Example:
        >>> lshl2(torch.zeros(1, 2), torch.ones(1, 2), torch.eye(2), torch.zeros(2))
        tensor([1.6931])

    Source: Wang, Ge and Wu (2021), arXiv 2011.01424. Departures: none.
    """
    require_pair(student, teacher, "student and teacher features")
    # Lifted once for both, so that the gradients of half-precision features add up in float32.
    student, teacher = lift(student, teacher)
    return l2(student, teacher) + lsh(student, teacher, weight, bias)


def mean_over_correct(values: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    r"""Mean of per-example losses over the examples whose teacher agrees with the label.

    .. math:: \frac{\sum_b c_b \ell_b}{\max(1, \sum_b c_b)}, \qquad c_b = [\, \arg\max_k t_{bk} = y_b \,]

    **This trusts the labels.** With noisy labels an example with a wrong label is left out because its
    teacher is right, and one whose teacher repeats the wrong label is kept. Where labels are doubtful, take
    the plain mean: mimicking needs no label.

    Args:
        values: [B] losses, gradient flows.
        teacher_logits: [B, K].
        labels: [B] integers; an unlabelled example (-1) is never correct.

    Returns:
        A scalar: the mean, or 0 with zero gradient where no example is correct.

    Raises:
        ModelError: the shapes do not fit; the message names them.

    Example:
        >>> teacher_logits = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
        >>> mean_over_correct(torch.tensor([0.5, 9.0]), teacher_logits, torch.tensor([0, 1]))
        tensor(0.5000)

    Source: the default of the public code of Wang, Ge and Wu (2021), arXiv 2011.01424. Departures: 0 instead
    of NaN where none is correct.
    """
    if teacher_logits.ndim != 2:
        raise ModelError(f"teacher_logits must be [B, K], not {list(teacher_logits.shape)}")
    require_shape(values, (len(teacher_logits),), "values", f"teacher_logits {list(teacher_logits.shape)}")
    require_shape(labels, (len(teacher_logits),), "labels", f"teacher_logits {list(teacher_logits.shape)}")
    correct = teacher_logits.argmax(1) == labels
    return values.masked_fill(~correct, 0).sum() / correct.sum().clamp(min=1)
