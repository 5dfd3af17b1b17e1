"""Binary cross-entropy for images with several labels, some of which may be unknown."""

import torch.nn.functional as F
from torch import Tensor

from lauter.errors import DataError, ModelError
from lauter.losses.inputs import lift, require_shape


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    r"""Mean binary cross-entropy over the classes of which something is known.

    .. math:: \ell_b = \frac{1}{\max(1, \sum_k m_{bk})} \sum_k m_{bk}
              \big(\log(1 + e^{x_{bk}}) - y_{bk} x_{bk}\big), \qquad m_{bk} = [\, y_{bk} \ge 0 \,]

    Args:
        logits: [B, K], gradient flows.
        targets: integers [B, K]: 1 present, 0 absent, -1 unknown, which gives no loss and no gradient.

    Returns:
        [B], non-negative, in nats per class, float32 at least; 0 where nothing is known of an image.

    Raises:
        ModelError: the shapes do not fit; the message names both.
        DataError: the targets are no integers, or (checked on the CPU alone, where it costs nothing) one is
            out of -1..1.

    Example:
        >>> import torch
        >>> binary_cross_entropy(torch.zeros(2, 3), torch.tensor([[1, 0, -1], [-1, -1, -1]]))
        tensor([0.6931, 0.0000])

    Source: the classification term for several labels of Wang, Ge and Wu (2021), arXiv 2011.01424, a plain
    binary cross-entropy. Unknown labels, and the mean over the known classes alone, are ours.
    """
    if logits.ndim != 2:
        raise ModelError(f"logits must be [B, K], not {list(logits.shape)}")
    require_shape(targets, tuple(logits.shape), "targets", f"logits {list(logits.shape)}")
    if targets.is_floating_point() or targets.is_complex():
        raise DataError(
            f"targets must be integers 1, 0 or -1 (present, absent, unknown), not {targets.dtype}"
        )
    if targets.device.type == "cpu" and targets.numel():
        low, high = int(targets.min()), int(targets.max())
        if low < -1 or high > 1:
            raise DataError(f"targets must be 1 (present), 0 (absent) or -1 (unknown), found {low}..{high}")
    (lifted,) = lift(logits)
    known = targets >= 0
    values = F.binary_cross_entropy_with_logits(
        lifted, targets.clamp(min=0).to(lifted.dtype), reduction="none"
    )
    return values.masked_fill(~known, 0).sum(1) / known.sum(1).clamp(min=1)
