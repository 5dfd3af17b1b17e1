"""Losses for labels of which some are wrong: bounded ones, regularisers, label distributions, mixup.

Gradients of cross-entropy are largest where the label is least believed, so a wrong label pulls hardest. What
is here weakens that pull, holds against it, moves the label itself or mixes it with others.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lauter.errors import ConfigError, DataError, ModelError
from lauter.losses.classification import cross_entropy
from lauter.losses.inputs import lift, require_shape

EARLY_LEARNING_MARGIN = 1e-4
"""In :func:`early_learning` a probability stays this far from 0 and from 1: the logarithm has a floor."""


def generalised_cross_entropy(
    logits: Tensor, labels: Tensor, *, q: float = 0.7, threshold: float = 0.0
) -> Tensor:
    r"""Generalised cross-entropy: from cross-entropy (q towards 0) to the mean absolute error (q = 1).

    .. math:: \ell_b = \frac{1 - \max(p_{b \tilde y_b}, k)^q}{q}, \qquad p_b = \operatorname{softmax}(x_b)

    Against cross-entropy each image weighs p^q, so an image whose label is not believed hardly counts; in the
    truncated form (k above 0) one whose label is believed less than k does not count at all.

    Args:
        logits: [B, K], gradient flows.
        labels: integers [B]; -1 means unlabelled and gives the loss 0 without gradient.
        q: within [0, 1]; 0 is cross-entropy itself.
        threshold: k, within [0, 1); 0 does not truncate. A network that believes no label yet learns nothing
            under it, so it is for one that is trained already.

    Returns:
        [B], within [0, (1 - k^q) / q], float32 at least.

    Raises:
        ModelError: the shapes do not fit; the message names them.
        DataError: the labels are no integers or (checked on the CPU alone) out of -1..K-1.
        ConfigError: ``q`` or ``threshold`` is out of its range.

    Example:
        >>> generalised_cross_entropy(torch.zeros(2, 4), torch.tensor([1, -1]), q=1.0)
        tensor([0.7500, 0.0000])

    Source: Zhang and Sabuncu (2018), arXiv 1805.07836. Departures: truncation looks at the logits at hand,
    not at those of an earlier pass over all images; q = 0 and unlabelled rows are ours.
    """
    if not 0 <= q <= 1 or not 0 <= threshold < 1:
        raise ConfigError(
            f"q must be within [0, 1] and threshold within [0, 1), not {q} and {threshold}; "
            "0.7 is usual for q, 0.5 for a threshold"
        )
    surprise = _measure_surprise(logits, labels)
    if threshold:
        surprise = surprise.clamp(max=-math.log(threshold))
    # 1 - p^q out of the logarithm: it keeps its digits where p is near 1 and its gradient where p is 0.
    return -torch.expm1(-q * surprise) / q if q else surprise


def symmetric_cross_entropy(
    logits: Tensor, labels: Tensor, *, alpha: float = 0.1, beta: float = 1.0, log_zero: float = -4.0
) -> Tensor:
    r"""Cross-entropy of the prediction from the label, and of the label from the prediction.

    .. math:: \ell_b = -\alpha \log p_{b \tilde y_b} - \beta \sum_k p_{bk} \log q_{bk}
              = -\alpha \log p_{b \tilde y_b} - \beta A (1 - p_{b \tilde y_b})

    with q the label as a distribution of one class and log 0 taken to be A. The second part is bounded: it
    tolerates wrong labels. Only the product of beta and A counts.

    Args:
        logits: [B, K], gradient flows.
        labels: integers [B]; -1 means unlabelled and gives the loss 0 without gradient.
        alpha: weight of cross-entropy, 0 or more.
        beta: weight of the reverse part, 0 or more.
        log_zero: A, 0 or below.

    Returns:
        [B], non-negative, in nats, float32 at least.

    Raises:
        ModelError: the shapes do not fit; the message names them.
        DataError: the labels are no integers or (checked on the CPU alone) out of -1..K-1.
        ConfigError: a weight is below 0, or ``log_zero`` above it.

    Example:
        >>> symmetric_cross_entropy(torch.zeros(1, 4), torch.tensor([1]), alpha=0.0).round(decimals=2)
        tensor([3.])

    Source: Wang et al. (2019), arXiv 1908.06112. Departures: unlabelled rows are ours.
    """
    if not (0 <= alpha < math.inf and 0 <= beta < math.inf and -math.inf < log_zero <= 0):
        raise ConfigError(
            "alpha and beta must be finite and 0 or more, log_zero finite and 0 or below, "
            f"not {alpha}, {beta} and {log_zero}; 0.1, 1 and -4 are usual"
        )
    surprise = _measure_surprise(logits, labels)
    return alpha * surprise + beta * log_zero * torch.expm1(-surprise)


def early_learning(logits: Tensor, targets: Tensor) -> Tensor:
    r"""Early-learning regulariser: it rewards a prediction for what the network said before.

    .. math:: \ell_b = \log\Big(1 - \sum_k t_{bk} \operatorname{clip}(p_{bk}, m, 1 - m)\Big)

    Its gradient weighs the pull of the label down where the target says another class, and up where it says
    the same. The margin m is ``EARLY_LEARNING_MARGIN``; beyond it there is no gradient.

    Args:
        logits: [B, K], gradient flows.
        targets: [B, K] non-negative, rows of sum 1 at most, detached here; see :func:`move_targets`.

    Returns:
        [B], within [log m, 0], in nats, float32 at least; 0 where a row of targets is 0.

    Raises:
        ModelError: the shapes differ; the message names both.

    Example:
        >>> early_learning(torch.zeros(1, 2), torch.tensor([[0.5, 0.5]]))
        tensor([-0.6931])

    Source: Liu et al. (2020), arXiv 2007.00151; the margin is the authors' code's. Departures: none.
    """
    _require_logits(logits)
    require_shape(targets, tuple(logits.shape), "targets", f"logits {list(logits.shape)}")
    lifted, aims = lift(logits, targets.detach())
    probs = lifted.softmax(1).clamp(EARLY_LEARNING_MARGIN, 1 - EARLY_LEARNING_MARGIN)
    return torch.log1p(-(aims * probs).sum(1))


def move_targets(targets: Tensor, probs: Tensor, *, momentum: float = 0.7) -> Tensor:
    r"""Move the targets of :func:`early_learning` towards the present predictions.

    .. math:: t_b \leftarrow \beta t_b + (1 - \beta) p_b

    Args:
        targets: [B, K] targets so far, zeros at first.
        probs: [B, K] probabilities, detached here.
        momentum: beta, within [0, 1).

    Returns:
        [B, K], float32 at least; rows of sum 1 - beta^n after n moves from zero.

    Raises:
        ModelError: the shapes differ; the message names both.
        ConfigError: the momentum is out of [0, 1).

    Example:
        >>> move_targets(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), momentum=0.75)
        tensor([[0.2500, 0.0000]])

    Source: Liu et al. (2020), arXiv 2007.00151. Departures: none.
    """
    if not 0 <= momentum < 1:
        raise ConfigError(f"momentum must be in [0, 1), not {momentum}; 0.7 is usual")
    require_shape(probs, tuple(targets.shape), "probs", f"targets {list(targets.shape)}")
    before, now = lift(targets.detach(), probs.detach())
    return torch.lerp(now, before, momentum)


def penalise_prior(logits: Tensor, prior: Tensor | None = None) -> Tensor:
    r"""Divergence of a batch's mean prediction from a class prior: no class may swallow the others.

    .. math:: \ell = \sum_k \pi_k \log \frac{\pi_k}{\bar p_k}, \qquad \bar p_k = \frac{1}{B} \sum_b p_{bk}

    **It asserts the prior.** Where the classes are not as frequent as it says, the uniform one above all, it
    teaches wrong predictions.

    Args:
        logits: [B, K] with B of 1 or more, gradient flows.
        prior: [K] class shares of sum 1, detached here; uniform where None.

    Returns:
        A scalar of the whole batch, non-negative, in nats, float32 at least.

    Raises:
        ModelError: the shapes do not fit, or the batch is empty; the message names them.
        DataError: the prior is no distribution (checked on the CPU alone, where it costs nothing).

    Example:
        >>> penalise_prior(torch.zeros(3, 2), torch.tensor([1.0, 0.0]))
        tensor(0.6931)

    Source: Tanaka et al. (2018), arXiv 1803.11364, who call for it in joint optimisation; used by DivideMix,
    Li, Socher and Hoi (2020), arXiv 2002.07394. Departures: none.
    """
    _require_logits(logits)
    batch, num_classes = logits.shape
    if not batch:
        raise ModelError("the mean prediction of a batch needs logits [B, K] with B of 1 or more, not 0")
    (lifted,) = lift(logits)
    if prior is None:
        shares = torch.full_like(lifted[0], 1 / num_classes)
    else:
        _require_prior(prior, logits)
        shares = prior.detach().to(lifted.dtype)
    log_mean = lifted.log_softmax(1).logsumexp(0) - math.log(batch)
    return (torch.xlogy(shares, shares) - shares * log_mean).sum()


def entropy(logits: Tensor) -> Tensor:
    r"""Entropy of the predictions: as a loss it asks for certain ones, weighed below 0 for doubtful ones.

    .. math:: \ell_b = -\sum_k p_{bk} \log p_{bk}

    Args:
        logits: [B, K], gradient flows.

    Returns:
        [B], within [0, log K], in nats, float32 at least.

    Raises:
        ModelError: the logits are not [B, K].

    Example:
        >>> entropy(torch.zeros(1, 4))
        tensor([1.3863])
    """
    _require_logits(logits)
    (lifted,) = lift(logits)
    log_probs = lifted.log_softmax(1)
    return -(log_probs.exp() * log_probs).sum(1)


def label_divergence(logits: Tensor, label_logits: Tensor) -> Tensor:
    r"""Divergence of a label distribution from the prediction, in the direction that PENCIL takes.

    .. math:: \ell_b = \sum_k p_{bk} \log \frac{p_{bk}}{d_{bk}}, \qquad
              p_b = \operatorname{softmax}(x_b), \quad d_b = \operatorname{softmax}(\tilde y_b)

    Its gradient with respect to the label logits is d - p: labels move to what the network says.

    Args:
        logits: [B, K], gradient flows.
        label_logits: [B, K], gradient flows.

    Returns:
        [B], non-negative, in nats, float32 at least.

    Raises:
        ModelError: the shapes differ; the message names both.

    Example:
        >>> label_divergence(torch.tensor([[100.0, 0.0]]), torch.zeros(1, 2))
        tensor([0.6931])

    Source: Yi and Wu (2019), arXiv 1903.07788. Departures: not divided by K here.
    """
    _require_logits(logits)
    require_shape(label_logits, tuple(logits.shape), "label_logits", f"logits {list(logits.shape)}")
    lifted, labels = lift(logits, label_logits)
    return F.kl_div(labels.log_softmax(1), lifted.log_softmax(1), reduction="none", log_target=True).sum(1)


def label_compatibility(label_logits: Tensor, labels: Tensor, *, squashed: bool = False) -> Tensor:
    r"""Cross-entropy between a label distribution and the given label, which it should not leave lightly.

    .. math:: \ell_b = -\log d_{b \tilde y_b} \quad \text{or, squashed,} \quad
              \ell_b = -\log \operatorname{softmax}(d_b)_{\tilde y_b}, \qquad
              d_b = \operatorname{softmax}(\tilde y_b)

    The two hold the label differently. Beside :func:`label_divergence` over K, the first with the weight
    alpha brings the distribution to rest at (p / K + alpha y) / (1 / K + alpha), y the given label: from
    alpha = 1 / K on no prediction can outweigh it. The squashed one pulls less, and hardly where d is
    certain: with 10 classes and alpha = 0.1 a certain prediction takes nine tenths of the label over.

    Args:
        label_logits: [B, K], gradient flows.
        labels: integers [B]; -1 means unlabelled and gives the loss 0 without gradient.
        squashed: whether the softmax is taken twice.

    Returns:
        [B], non-negative, in nats, float32 at least.

    Raises:
        ModelError: the shapes do not fit; the message names them.
        DataError: the labels are no integers or (checked on the CPU alone) out of -1..K-1.

    Example:
        >>> label_compatibility(torch.zeros(1, 4), torch.tensor([2]))
        tensor([1.3863])

    Source: Yi and Wu (2019), arXiv 1903.07788: the paper's formula; squashed, the authors' code's.
    """
    _require_logits(label_logits)
    (lifted,) = lift(label_logits)
    return _measure_surprise(lifted.softmax(1) if squashed else lifted, labels)


def mix(values: Tensor, partners: Tensor, share: float) -> Tensor:
    r"""Mixup of a batch with itself: images, and in the same way their soft targets.

    .. math:: \hat v_b = \lambda v_b + (1 - \lambda) v_{\sigma(b)}

    Args:
        values: [B, ...] pixels of any kind, or soft targets [B, K].
        partners: integers [B], sigma: which row each one is mixed with.
        share: lambda, within [0, 1], drawn by the caller; 1 leaves the values as they are.

    Returns:
        [B, ...], float32 at least.

    Raises:
        ModelError: the partners are not one per value, or the values are a row of numbers, such as classes.
        ConfigError: the share is out of [0, 1].

    Example:
        >>> mix(torch.tensor([[0.0], [8.0]]), torch.tensor([1, 0]), 0.75)
        tensor([[2.],
                [6.]])

    Source: Zhang et al. (2018), arXiv 1710.09412. Departures: none.
    """
    if values.ndim < 2:
        raise ModelError(
            f"what is mixed must be [B, ...] with two axes or more, not {list(values.shape)}; "
            "classes are mixed as soft targets [B, K]"
        )
    require_shape(partners, (len(values),), "partners", f"values {list(values.shape)}")
    if not 0 <= share <= 1:
        raise ConfigError(f"the share of a mix must be within [0, 1], not {share}")
    (lifted,) = lift(values)
    return torch.lerp(lifted[partners], lifted, share)


def sharpen(probs: Tensor, temperature: float) -> Tensor:
    r"""Draw distributions towards their largest entry.

    .. math:: q_{bk} = \frac{p_{bk}^{1/T}}{\sum_j p_{bj}^{1/T}}

    Args:
        probs: [B, K], rows of sum 1.
        temperature: T; 1 changes nothing, towards 0 the largest entry takes all.

    Returns:
        [B, K], rows of sum 1.
    """
    # Divided by the row's largest first: a small T would else press every entry to 0.
    powers = (probs / probs.amax(1, keepdim=True)) ** (1 / temperature)
    return powers / powers.sum(1, keepdim=True)


def _measure_surprise(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p of each given label [B], 0 without gradient where there is none."""
    if labels.is_floating_point():
        raise DataError(
            f"this loss needs one integer label for each image, not {labels.dtype}; "
            "soft targets are for cross_entropy"
        )
    return cross_entropy(logits, labels)


def _require_logits(logits: Tensor) -> None:
    if logits.ndim != 2:
        raise ModelError(f"logits must be [B, K], not {list(logits.shape)}")


def _require_prior(prior: Tensor, logits: Tensor) -> None:
    require_shape(prior, (logits.shape[1],), "prior", f"logits {list(logits.shape)}")
    # Looking at it on a GPU would make that wait at every step.
    if prior.device.type == "cpu" and not (bool((prior >= 0).all()) and abs(float(prior.sum()) - 1) <= 1e-3):
        raise DataError(
            f"a prior must be class shares of 0 or more of sum 1, not {prior.tolist()}; "
            "divide counts by their sum"
        )
