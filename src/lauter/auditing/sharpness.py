r"""How sharp beliefs should be: how much of the disagreement with given labels is noise.

Labels alone hardly tell: a doubtful image and a doubtful label look the same. Two things speak of it. One is
the likelihood of the given labels under the noise model (``noise_model.py``). The other is the *calm* images,
of each class the most confident ones: there a classifier errs less and less, while wrong labels stay. With
the rank :math:`\rho` of an image in its class's confidence (0 for the highest)

.. math:: P(\text{believed class} \ne \tilde y \mid \rho) = \eta_0 + (1 - \eta_0) \, c \, \rho^\gamma

and :math:`\eta_0` is the noise that remains. The sharpness is the one under which the model finds about as
much noise among the calm images, and which makes the labels likely.

Where this falls short: a classifier whose errors do not become rare among its most confident images makes
clean labels look noisy.
"""

import numpy as np
from numpy.typing import NDArray

from lauter.data.dataset import Int64s
from lauter.noisy.beliefs import Floats
from lauter.noisy.top_beliefs import TopBeliefs

SHARPNESS = np.exp(np.linspace(np.log(0.4), np.log(6.0), 19))
"""Exponents that are tried."""
CALM = 0.3
"""Share of each believed class's images, the most confident ones, that count as calm."""
SUREST = 0.1
"""Share of each believed class's images that count as its surest ones."""
TELLING = 0.5
"""Agreement of the surest images with their labels below which nothing tells bad labels from bad beliefs."""
TRUST = 0.05
"""What the likelihood weighs: labels of like images are surprising together."""

_SLACK = 0.01  # of the calm noise, beside its sampling error
_STEEPNESS = 0.9  # of the error curve
_HEIGHTS = np.linspace(0, 1, 41)  # of the error curve, c
_RANK_BINS, _RANKED = 25, 0.5  # bins of the error curve, and the ranks it is fitted to
_FEWEST = 30  # images that an agreement is read off
_TINY = 1e-12


def rank_confidence(beliefs: TopBeliefs) -> Floats:
    """Rank [M] in 0..1 of each image's confidence within its believed class; 0 is the highest."""
    classes, confidence = beliefs.classes[:, 0], beliefs.probs[:, 0]
    order = np.lexsort((-confidence, classes))
    counts = np.bincount(classes, minlength=beliefs.num_classes)
    starts = np.cumsum(counts) - counts
    ranks = np.empty(len(classes))
    ordered = classes[order]
    ranks[order] = (np.arange(len(order)) - starts[ordered] + 0.5) / counts[ordered]
    return ranks


def agree_where_surest(beliefs: TopBeliefs, labels: Int64s) -> float:
    """How often the surest images of each believed class, a tenth of them, are believed as they are labelled.

    Noise hits sure images as others, so a good classifier agrees with its surest images as often as labels
    are right. A poor one is sure of nothing, and agrees with few of them though all labels be right. Below
    ``TELLING`` the two cannot be told apart.

    Args:
        beliefs: out-of-fold, of M labelled images.
        labels: [M] given labels.

    Returns:
        The share, of 30 images at least where there are so many; 0 without any.

    Source: ours.
    """
    if not len(labels):
        return 0.0
    surest = np.argsort(rank_confidence(beliefs), kind="stable")[: max(_FEWEST, round(SUREST * len(labels)))]
    return float(np.mean(beliefs.classes[surest, 0] == labels[surest]))


def estimate_calm_noise(ranks: Floats, disagrees: NDArray[np.bool_]) -> float:
    r"""The disagreement that is left where a classifier is surest.

    It is where the likelihood is largest of

    .. math:: P(\text{disagrees} \mid \rho) = \eta_0 + (1 - \eta_0) \, c \, \rho^\gamma, \quad
              \rho \le 1/2, \quad
              \gamma = -0.9 \ln \frac{d - \eta_0}{1 - \eta_0}

    over :math:`\eta_0` (in steps of 0.005) and c (of 0.025), with d the disagreement of all images. A good
    classifier's errors fall steeply towards its most confident images, a poor one's hardly do: without noise,
    classifiers with 4%, 43% and 80% of errors were seen to have exponents of 3, 0.65 and 0.24.

    Where images are few, another share of the calm ones happens to be labelled wrongly. So what is returned
    is their own disagreement less the errors that the curve expects of them.

    Args:
        ranks: [M] of :func:`rank_confidence`.
        disagrees: [M] whether the believed class is not the given one.

    Returns:
        The noise among the calm images; 0 where there are none.

    Source: ours.
    """
    near = ranks <= _RANKED
    if not near.any():
        return 0.0
    bins = np.minimum((ranks[near] / _RANKED * _RANK_BINS).astype(np.int64), _RANK_BINS - 1)
    counts = np.bincount(bins, minlength=_RANK_BINS)
    hits = np.bincount(bins, disagrees[near], minlength=_RANK_BINS)
    middles = np.bincount(bins, ranks[near], minlength=_RANK_BINS) / np.maximum(counts, 1)
    overall = float(disagrees.mean())
    noise = np.arange(0, max(overall, 0.005), 0.005)
    errors = np.clip((overall - noise) / (1 - noise), 1e-3, 1 - 1e-3)
    steepness = -_STEEPNESS * np.log(errors)
    curves = np.maximum(middles, _TINY) ** steepness[:, None]
    shares = noise[:, None, None] + (1 - noise)[:, None, None] * _HEIGHTS[:, None] * curves[:, None, :]
    shares = np.clip(shares, 1e-6, 1 - 1e-6)
    likelihood = (hits * np.log(shares) + (counts - hits) * np.log(1 - shares)).sum(-1)
    best, height = np.unravel_index(likelihood.argmax(), likelihood.shape)
    calm = ranks < CALM
    if not calm.any():
        return float(noise[best])
    errors = (1 - noise[best]) * _HEIGHTS[height] * np.mean(ranks[calm] ** steepness[best])
    return max(float(disagrees[calm].mean() - errors), 0.0)


def choose_sharpness(
    likelihoods: Floats,
    calm_rates: Floats,
    calm_rate: float,
    count: int,
    calm_count: int,
    trust: float = TRUST,
) -> float:
    r"""The sharpness that suits both the calm images and the likelihood.

    It is where the following is largest, with m(a) the noise that the model finds among the calm images and s
    the error of :math:`\eta_0`:

    .. math:: \lambda M \, \ell(a) - \frac{(m(a) - \eta_0)^2}{2 s^2}

    Args:
        likelihoods: [S] mean log-likelihoods at ``SHARPNESS``; between them they are interpolated.
        calm_rates: [S] m.
        calm_rate: :math:`\eta_0`.
        count: M, images.
        calm_count: how many of them are calm.
        trust: :math:`\lambda`.
    """
    grid = np.log(SHARPNESS)
    fine = np.linspace(grid[0], grid[-1], 200)
    gain = trust * count * (np.interp(fine, grid, likelihoods) - likelihoods.max())
    variance = max(calm_rate * (1 - calm_rate), 0.02) / max(calm_count, 1) + _SLACK**2
    loss = (np.interp(fine, grid, calm_rates) - calm_rate) ** 2 / (2 * variance)
    return float(np.exp(fine[(gain - loss).argmax()]))
