"""Cross-entropy with a class prior, for labels that may be missing or soft; the weighted mean of losses."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lauter.errors import ConfigError, DataError, ModelError
from lauter.losses.inputs import lift, require_shape


def cross_entropy(
    logits: Tensor, labels: Tensor, *, log_prior: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    r"""Cross-entropy, prior-corrected (logit-adjusted) where a class prior is given.

    .. math:: \ell_b = -\sum_k q_{bk} \log \operatorname{softmax}(x_b + \log \pi)_k, \qquad
              q_{bk} = (1 - \varepsilon) y_{bk} + \frac{\varepsilon}{K} \sum_j y_{bj}

    Trained so, the plain logits rank classes as if all were equally frequent; predictions under the training
    prior are softmax(logits + log_prior).

    Args:
        logits: [B, K], gradient flows.
        labels: integers [B], where -1 means unlabelled and gives the loss 0 without gradient; or soft targets
            [B, K], floating, used as they are (rows of sum 1; a row of zeros gives the loss 0).
        log_prior: [K] logs of the class frequencies in training, finite: a class without any example needs a
            small frequency instead of 0. None for plain cross-entropy.
        label_smoothing: epsilon, the share of each label that is spread over all classes, within [0, 1].

    Returns:
        [B], in nats, float32 at least.

    Raises:
        ModelError: the shapes do not fit; the message names them.
        DataError: the labels are neither integers nor soft targets, or (checked on the CPU alone, where it
            costs nothing) one is out of -1..K-1.
        ConfigError: ``label_smoothing`` is out of [0, 1].

    Example:
        >>> cross_entropy(torch.zeros(2, 4), torch.tensor([1, -1]))
        tensor([1.3863, 0.0000])

    Source: logit adjustment after Menon et al. (2021), arXiv 2007.07314, with their tau = 1; label smoothing
    after Szegedy et al. (2016), arXiv 1512.00567. Unlabelled rows are ours.
    """
    if logits.ndim != 2:
        raise ModelError(f"logits must be [B, K], not {list(logits.shape)}")
    if not 0 <= label_smoothing <= 1:
        raise ConfigError(
            f"label_smoothing must be a share within [0, 1], not {label_smoothing}; 0.1 is usual"
        )
    batch, num_classes = logits.shape
    (lifted,) = lift(logits)
    if log_prior is not None:
        require_shape(log_prior, (num_classes,), "log_prior", f"logits {list(logits.shape)}")
        lifted = lifted + log_prior.to(lifted.dtype)
    log_probs = F.log_softmax(lifted, dim=1)

    if labels.is_floating_point():
        require_shape(labels, (batch, num_classes), "soft targets", f"logits {list(logits.shape)}")
        targets = labels.to(log_probs.dtype)
        if label_smoothing:
            mass = targets.sum(1, keepdim=True)
            targets = (1 - label_smoothing) * targets + label_smoothing / num_classes * mass
        return -(targets * log_probs).sum(1)

    require_shape(labels, (batch,), "labels", f"logits {list(logits.shape)}")
    _require_classes(labels, num_classes)
    given = labels.long()
    values = -log_probs.gather(1, given.clamp(min=0)[:, None]).squeeze(1)
    if label_smoothing:
        values = (1 - label_smoothing) * values - label_smoothing * log_probs.mean(1)
    return values.masked_fill(given < 0, 0)


def _require_classes(labels: Tensor, num_classes: int) -> None:
    """Check that hard labels are integers and, on the CPU, that they are within -1..K-1."""
    if labels.dtype == torch.bool or labels.is_complex():
        raise DataError(f"labels must be integers [B] or floating soft targets [B, K], not {labels.dtype}")
    # Looking at labels on a GPU would make it wait at every step; there the gather stops on a bad label.
    if labels.device.type == "cpu" and labels.numel():
        low, high = int(labels.min()), int(labels.max())
        if low < -1 or high >= num_classes:
            raise DataError(
                f"labels must be within -1..{num_classes - 1} for {num_classes} classes, found {low}..{high};"
                " -1 stands for no label"
            )


def mean_over(values: Tensor, weights: Tensor) -> Tensor:
    r"""Weighted mean of per-example losses.

    .. math:: \frac{\sum_b w_b \ell_b}{\max(\sum_b w_b, \text{tiny})}

    Args:
        values: [B] losses, gradient flows; a value of weight 0 does not enter, even where it is infinite.
        weights: [B], non-negative (or bool: a mask), detached here.

    Returns:
        A scalar, float32 at least; 0 with zero gradient where all weights are 0.

    Raises:
        ModelError: the shapes differ; the message names both.

    Example:
        >>> mean_over(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1.0, 1.0, 0.0]))
        tensor(1.5000)
    """
    require_shape(weights, tuple(values.shape), "weights", f"values {list(values.shape)}")
    values, weights = lift(values, weights.detach())
    total = weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
    return (values.masked_fill(weights == 0, 0) * weights).sum() / total


def count_log_prior(labels: Tensor, num_classes: int) -> Tensor:
    """Log class shares [K] of labels [N], -1 left out; each class counts half an image more, so none is 0.

    Args:
        labels: [N] integers, -1 where there is none.
        num_classes: K.

    Returns:
        [K], float32.

    Example:
        >>> count_log_prior(torch.tensor([0, 0, -1]), 2).exp()
        tensor([0.8333, 0.1667])
    """
    counts = torch.bincount(labels[labels >= 0], minlength=num_classes).float() + 0.5
    return (counts / counts.sum()).log()
