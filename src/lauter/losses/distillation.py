"""Distillation by logits."""

import torch.nn.functional as F
from torch import Tensor

from lauter.losses.inputs import lift, require_pair, require_positive


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
        >>> import torch
        >>> logits = torch.tensor([[1.0, 2.0, 3.0]])
        >>> kd(logits, logits + 5.0).abs() < 1e-6
        tensor([True])

    Source: Hinton, Vinyals and Dean (2015), arXiv 1503.02531.
    """
    require_pair(student_logits, teacher_logits, "student and teacher logits")
    require_positive(temperature, "temperature", "4 is usual")
    student, teacher = lift(student_logits, teacher_logits.detach())
    log_q = F.log_softmax(student / temperature, dim=1)
    log_p = F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
