"""Distillation by logits: whole distributions, their decoupled parts, and their correlations."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lauter.errors import DataError, ModelError
from lauter.losses.inputs import lift, require_pair, require_positive, require_shape

CORRELATION_EPSILON = 1e-8
"""Beside the norms in a correlation: it mutes a class that is improbable in the whole batch."""


def kd(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0) -> Tensor:
    r"""Soft-logit distillation: divergence of the student's softened distribution from the teacher's.

    .. math:: \ell_b = T^2 \sum_k p_{bk} \log \frac{p_{bk}}{q_{bk}}, \qquad
              p_b = \operatorname{softmax}(t_b / T), \quad q_b = \operatorname{softmax}(s_b / T)

    The factor T^2 keeps the size of the gradient independent of the temperature.

    Args:
        student_logits: [B, K], gradient flows.
        teacher_logits: [B, K], detached here.
        temperature: T, positive, without unit.

    Returns:
        [B], non-negative, in nats, float32 at least.

    Raises:
        ModelError: the shapes differ; the message names both.
        ConfigError: the temperature is not positive.

    Example:
        >>> logits = torch.tensor([[1.0, 2.0, 3.0]])
        >>> kd(logits, logits + 5.0).abs() < 1e-6
        tensor([True])

    Source: Hinton, Vinyals and Dean (2015), arXiv 1503.02531.
    """
    log_q, log_p = _soften(student_logits, teacher_logits, temperature)
    return temperature**2 * _divergence(log_q, log_p).sum(1)


def dkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    r"""Decoupled distillation: the label's class against all others, and the others among themselves.

    .. math:: \ell_b = T^2 \Big( \alpha \big[ p_y \log \tfrac{p_y}{q_y} + (1 - p_y) \log \tfrac{1 - p_y}{1 -
              q_y} \big] + \beta \sum_{k \ne y} \hat p_k \log \frac{\hat p_k}{\hat q_k} \Big), \qquad
              \hat p_k = \frac{p_k}{1 - p_y}, \quad \hat q_k = \frac{q_k}{1 - q_y}

    with p and q softened by T as in ``kd``, which is this with alpha = 1 and beta = 1 - p_y. Everything is
    computed from logarithms, so a teacher that is certain of the label costs no digits.

    **The label decides what is taken apart.** A wrong one sets the true class among the others.

    Args:
        student_logits: [B, K], gradient flows; K of 2 or more.
        teacher_logits: [B, K], detached here.
        labels: integers [B]; an unlabelled example (-1) gets alpha times ``kd``, which needs no label.
        alpha: weight of the label's class against the rest.
        beta: weight of the divergence among the rest.
        temperature: T, positive, without unit.

    Returns:
        [B], non-negative, in nats, float32 at least.

    Raises:
        ModelError: the shapes do not fit or there is one class only; the message names them.
        DataError: the labels are not integers or (checked on the CPU alone) one is out of -1..K-1.
        ConfigError: the temperature is not positive.

    Example:
        >>> student, teacher = torch.zeros(2, 3), torch.tensor([[4.0, 0.0, 0.0]]).repeat(2, 1)
        >>> dkd(student, teacher, torch.tensor([0, -1])).round(decimals=4)
        tensor([1.9726, 1.9726])

    Source: Zhao et al. (2022), arXiv 2203.08679; the public code's defaults for alpha, beta and T.
    Departures: what becomes of unlabelled examples is ours.
    """
    log_q, log_p = _soften(student_logits, teacher_logits, temperature)
    batch, num_classes = log_q.shape
    require_shape(labels, (batch,), "labels", f"logits {list(student_logits.shape)}")
    _require_labels(labels, num_classes)
    given = labels.long().clamp(min=0)[:, None]
    is_label = torch.zeros_like(log_q, dtype=torch.bool).scatter(1, given, True)

    rest_q, rest_p = (log.masked_fill(is_label, -math.inf) for log in (log_q, log_p))
    mass_q, mass_p = (rest.logsumexp(1, keepdim=True) for rest in (rest_q, rest_p))
    # The label's own column is filled after the subtraction too: -inf minus -inf is not a number.
    among_q, among_p = (
        (log - mass).masked_fill(is_label, 0) for log, mass in ((log_q, mass_q), (log_p, mass_p))
    )
    target = _divergence(log_q.gather(1, given), log_p.gather(1, given)) + _divergence(mass_q, mass_p)
    among = _divergence(among_q, among_p).sum(1)
    decoupled = alpha * target.squeeze(1) + beta * among
    whole = alpha * _divergence(log_q, log_p).sum(1)
    return temperature**2 * torch.where(labels >= 0, decoupled, whole)


def dist(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0) -> tuple[Tensor, Tensor]:
    r"""Correlations instead of divergences: what the two agree on up to scale and shift is left free.

    .. math:: \ell^\text{inter}_b = T^2 \big( 1 - \rho(q_{b \cdot}, p_{b \cdot}) \big), \qquad
              \ell^\text{intra} = \frac{T^2}{K} \sum_k \big( 1 - \rho(q_{\cdot k}, p_{\cdot k}) \big)

    with p and q softened by T as in ``kd`` and rho the Pearson correlation: over the classes of an image for
    inter, over the images of the batch for intra.

    Args:
        student_logits: [B, K], gradient flows.
        teacher_logits: [B, K], detached here.
        temperature: T, positive, without unit.

    Returns:
        inter [B] and intra, a scalar of the whole batch; both within [0, 2 T^2], float32 at least. What has
        no spread beyond rounding (equal logits, or a batch of one image) correlates with nothing: it costs
        T^2, without gradient.

    Raises:
        ModelError: the shapes differ; the message names both.
        ConfigError: the temperature is not positive.

    Example:
        >>> logits = torch.tensor([[1.0, 2.0], [3.0, 1.0]])
        >>> inter, intra = dist(logits, logits.flip(1), temperature=1.0)
        >>> inter.round(decimals=4), intra.round(decimals=4)
        (tensor([2., 2.]), tensor(2.))

    Source: Huang et al. (2022), arXiv 2205.10536; the constant beside the norms is the public code's.
    Departures: inter is not averaged over the batch; no gradient where there is no spread.
    """
    log_q, log_p = _soften(student_logits, teacher_logits, temperature)
    q, p = log_q.exp(), log_p.exp()
    inter = _correlation_gap(q, p)
    intra = _correlation_gap(q.T, p.T).mean()
    return temperature**2 * inter, temperature**2 * intra


def _soften(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Logarithms of both softened distributions, the teacher's without gradient."""
    require_pair(student_logits, teacher_logits, "student and teacher logits")
    require_positive(temperature, "temperature", "4 is usual")
    student, teacher = lift(student_logits, teacher_logits.detach())
    return F.log_softmax(student / temperature, dim=1), F.log_softmax(teacher / temperature, dim=1)


def _divergence(log_q: Tensor, log_p: Tensor) -> Tensor:
    """The summands p log(p / q) of a divergence."""
    return F.kl_div(log_q, log_p, reduction="none", log_target=True)


def _correlation_gap(first: Tensor, second: Tensor) -> Tensor:
    """1 - Pearson correlation of each row of [R, C] with its partner, 1 where one has no spread; [R]."""
    gaps = [rows - rows.mean(1, keepdim=True) for rows in (first, second)]
    spreads = [torch.linalg.vector_norm(gap, dim=1) for gap in gaps]
    values: Tensor = 1 - (gaps[0] * gaps[1]).sum(1) / (spreads[0] * spreads[1] + CORRELATION_EPSILON)
    # What rounding leaves of a flat row has a direction too, and a gradient of 1e8.
    least = 8 * torch.finfo(first.dtype).eps
    flat = [
        spread <= least * torch.linalg.vector_norm(rows, dim=1)
        for spread, rows in zip(spreads, (first, second), strict=True)
    ]
    return values.masked_fill(flat[0] | flat[1], 1)


def _require_labels(labels: Tensor, num_classes: int) -> None:
    """Check that labels are integers, that there is a class beside theirs and, on the CPU, their range."""
    if num_classes < 2:
        raise ModelError(f"dkd tells the label's class from others and needs 2 or more, not {num_classes}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(f"dkd needs one integer label for each image, not {labels.dtype}; or take kd")
    # Looking at labels on a GPU would make it wait at every step; there the gather stops on a bad label.
    if labels.device.type == "cpu" and labels.numel():
        low, high = int(labels.min()), int(labels.max())
        if low < -1 or high >= num_classes:
            raise DataError(
                f"labels must be within -1..{num_classes - 1} for {num_classes} classes, found {low}..{high};"
                " -1 stands for no label"
            )
