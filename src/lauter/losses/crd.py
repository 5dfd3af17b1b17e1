r"""Contrastive representation distillation: an image told from thousands of others in a memory.

The critic says how likely an anchor :math:`v_b` and a remembered vector :math:`m_n` are of one image:

.. math:: h_{bn} = \frac{e^{v_b \cdot m_n / \tau} / Z}{e^{v_b \cdot m_n / \tau} / Z + K / N}
          = \sigma(v_b \cdot m_n / \tau - \log a - \log K), \qquad Z = N a

where N vectors are remembered, K of them are drawn as negatives, and a is the mean of
:math:`e^{v \cdot m / \tau}` over the first step's pairs. So N falls out, and the loss is a logistic
regression on similarities, finite whatever they are.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lauter.errors import ConfigError, ModelError
from lauter.losses.geometry import split_features
from lauter.losses.gradient import attach_gradient, wants_gradient
from lauter.losses.inputs import lift, no_autocast, require_pair, require_positive, require_shape


def memory_contrast(
    anchors: Tensor, memory: Tensor, rows: Tensor, log_mean: Tensor, *, temperature: float = 0.07
) -> tuple[Tensor, Tensor]:
    r"""Noise-contrastive loss of anchors against remembered vectors: one positive and K negatives each.

    .. math:: \ell_b = -\log h_{b n_0} - \sum_{k=1}^{K} \log(1 - h_{b n_k})

    All N similarities are computed and K + 1 of them looked up, since a matrix product is many times faster
    than copying B (K + 1) rows together: O(B N d) operations and a [B, N] of memory, whatever K is. The
    gradient is computed beside the value, so nothing of that size outlives the call, and the memory may be
    changed between the forward and the backward pass.

    Args:
        anchors: [B, d] at unit length, gradient flows; first order only.
        memory: [N, d], detached here.
        rows: int64 [B, 1 + K] rows of the memory: the positive of each anchor, then its negatives, which may
            repeat.
        log_mean: scalar, log a; NaN where it is not known yet, and is to be estimated from this batch.
        temperature: tau, positive, without unit.

    Returns:
        The loss [B], non-negative, in nats, float32 at least whatever the autocast; and log a, as it was or
        as estimated, without gradient.

    Raises:
        ModelError: the shapes do not fit; the message names them.
        ConfigError: the temperature is not positive.

    Example:
        >>> anchors, memory = torch.tensor([[1.0, 0.0]]), torch.eye(2)
        >>> rows = torch.tensor([[0, 1]])
        >>> memory_contrast(anchors, memory, rows, torch.tensor(0.0), temperature=1.0)
        (tensor([1.0064]), tensor(0.))

    Source: Tian, Krishnan and Isola (2020), arXiv 1910.10699, with the constant Z of their public code, which
    adds 1e-7 to the denominators; in the logarithmic form, which is ours, nothing has to be added.
    """
    require_positive(temperature, "temperature", "0.07 to 0.1 is usual")
    if anchors.ndim != 2 or memory.ndim != 2 or anchors.shape[1] != memory.shape[1]:
        raise ModelError(
            f"anchors [B, d] and memory [N, d] must be of one width, not {list(anchors.shape)} and "
            f"{list(memory.shape)}; embed the anchors first"
        )
    if rows.ndim != 2 or rows.shape[1] < 2:
        raise ModelError(f"rows must be [B, 1 + K] with a negative at least, not {list(rows.shape)}")
    require_shape(rows, (len(anchors), rows.shape[1]), "rows", f"anchors {list(anchors.shape)}")
    with no_autocast(anchors):
        anchors, memory, log_mean = lift(anchors, memory.detach(), log_mean.detach())
        with torch.no_grad():
            similarity = anchors @ memory.T
            scores = similarity.gather(1, rows).div_(temperature)
            estimate = scores.flatten().logsumexp(0) - math.log(scores.numel())
            log_mean = torch.where(log_mean.isnan(), estimate, log_mean)
            # Logits of being wrong: those of the negatives, and of the positive with the sign turned.
            logits = scores.sub_(log_mean + math.log(rows.shape[1] - 1))
            logits[:, 0].neg_()
            value = F.softplus(logits).sum(1)
        if not wants_gradient(anchors):
            return value, log_mean
        with torch.no_grad():
            slopes = logits.sigmoid_().div_(temperature)
            slopes[:, 0].neg_()
            gradient = similarity.zero_().scatter_add_(1, rows, slopes) @ memory
        return attach_gradient(anchors, value, gradient), log_mean


@torch.no_grad()
def move_memory(remembered: Tensor, vectors: Tensor, *, momentum: float = 0.5) -> Tensor:
    r"""Remembered vectors after a batch: a running mean of each image's vectors, at unit length.

    .. math:: m' = \frac{\mu m + (1 - \mu) v}{\lVert \mu m + (1 - \mu) v \rVert}

    Args:
        remembered: [B, d], the memory's rows of the batch.
        vectors: [B, d], the batch's new vectors.
        momentum: mu, within [0, 1); 0 takes the new vectors.

    Returns:
        [B, d] at unit length, without gradient.

    Raises:
        ModelError: the shapes differ; the message names both.
        ConfigError: ``momentum`` is out of its range.

    Example:
        >>> move_memory(torch.tensor([[0.6, 0.0]]), torch.tensor([[0.0, 0.8]]))
        tensor([[0.6000, 0.8000]])

    Source: Tian, Krishnan and Isola (2020), arXiv 1910.10699, as their public code does it.
    """
    require_pair(remembered, vectors, "remembered and new vectors")
    if not 0 <= momentum < 1:
        raise ConfigError(f"momentum must be in [0, 1), not {momentum}; 0.5 is usual")
    remembered, vectors = lift(remembered, vectors)
    return split_features(momentum * remembered + (1 - momentum) * vectors)[1]
