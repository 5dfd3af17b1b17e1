r"""Estimates of the noise: how much is closed, how much is open, and which class is called which.

Open is told from closed by the filter's idea, turned round (ours). The filter asks whether a label earns more
belief than wrong labels do. Here the question is whether an image is believed, in the class that it resembles
most, as much as the images of that class are. With :math:`c_i` its largest belief, the prior taken out, and
:math:`s_i` the class, its *rank* among images that carry the right label is

.. math:: v_i = P_1\left(c_j < c_i \;\middle|\; s_j = s_i\right)

where image j counts with :math:`r_j^2`: once as it is picked, once as its label is probably right. An image
of another class than its label says is one of that class's images all the same. So the rank is uniform for
all images that belong to a class, whatever the classifier's quality, as long as labels go wrong regardless of
how clear an image is. Images of no class gather at 0. With :math:`\omega` the open rate, over all labelled
images

.. math:: f(v) = (1 - \omega) + \omega f_0(v)

and :math:`1 - \omega` is the largest uniform part that fits under f, as the noise rate of ``filtering.py`` is
found. The closed rate is what is left of the noise rate.

Where this falls short: labels that go wrong on unclear images above all, as people's do, make closed noise
look open; images of no class that are taken for a class as surely as that class's own make open noise look
closed.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from lauter.data.dataset import UNLABELLED, Int64s
from lauter.errors import ConfigError, DataError
from lauter.evaluation.intervals import Interval
from lauter.noisy.beliefs import Floats
from lauter.noisy.top_beliefs import Beliefs, TopBeliefs, find_best, sum_beliefs

_BINS = 20  # of the rank
_EDGES = np.linspace(0, 1, _BINS + 1)
_LEVELS = np.arange(1, 19)  # bins from the top within which the height of the uniform part is looked for
_POOLED = 5.0  # images' worth of all classes in a class's scale of ranks, for classes that have few
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Openness:
    """Whether wrongly labelled images are of another class or of none.

    Attributes:
        open_rate: estimated share of images of no class among the labelled ones.
        p_closed: [N] probability that an image is of one of the classes if its label is wrong.
    """

    open_rate: float
    p_closed: Floats


@dataclass(frozen=True, eq=False)
class NoiseEstimate:
    """How much noise of which kind there is, as far as the beliefs tell.

    Attributes:
        closed_rate: share of the labelled images that belong to another class than their label says.
        open_rate: share of the labelled images that belong to none.
        p_open: [N] probability that an image belongs to none of the classes; for unlabelled images as for
            those whose label is wrong.
        transition: [K, K] transition matrix [true, given] of the images that have a class; rows sum to 1.
        transition_low: [K, K] lower ends of its entries.
        transition_high: [K, K] upper ends.
    """

    closed_rate: Interval
    open_rate: Interval
    p_open: Floats
    transition: Floats
    transition_low: Floats
    transition_high: Floats


def tell_open(beliefs: Beliefs, labels: Int64s, p_right: Floats, prior: Floats) -> Openness:
    r"""Tell wrongly labelled images of another class from those of none; see the head of this file.

    .. math:: P(\text{open} \mid v) = 1 - \frac{1 - \omega}{\hat f(v)}, \qquad
              P(\text{closed} \mid \text{wrong}, v)
              = 1 - \min\left(1, \frac{P(\text{open} \mid v)}{P(\text{wrong} \mid v)}\right)

    with the closest decreasing density as :math:`\hat f` and the mean of 1 - r over the images of a like rank
    as :math:`P(\text{wrong} \mid v)`.

    Args:
        beliefs: [N, K] under the training prior, or the largest of them.
        labels: [N] given labels, -1 where there is none.
        p_right: [N] probability that the given label is right.
        prior: [K] class shares.

    Returns:
        The open rate, at most the noise rate, and the probability for each image, unlabelled ones too.

    Raises:
        DataError: shapes do not fit, or a probability is out of its range.

    Source: ours; the uniform part after Storey (2002), the density after Grenander (1956).
    """
    _check(beliefs, labels, p_right, prior)
    return _divide(_rank_images(beliefs, labels, p_right, prior), labels != UNLABELLED, p_right)


def estimate_noise(
    beliefs: Beliefs,
    labels: Int64s,
    p_right: Floats,
    prior: Floats,
    generator: np.random.Generator,
    *,
    resamples: int = 200,
    level: float = 0.95,
) -> NoiseEstimate:
    r"""Estimate closed rate, open rate and transition matrix, each with an interval.

    The open rate is that of :func:`tell_open`, the closed rate the rest of the noise rate, the mean of 1 - r.

    The intervals of the rates are percentiles over resamples: images are drawn with replacement, each label
    is drawn right or wrong by its probability, and the open rate is found anew among the ranks that were
    drawn. Those of the matrix are Wilson's, of shares among as many images as each true class is expected to
    have. Both count which images happen to be here and what each happens to be; neither counts that beliefs
    may mislead as a whole.

    Args:
        beliefs: [N, K] under the training prior, or the largest of them.
        labels: [N] given labels, -1 where there is none.
        p_right: [N] probability that the given label is right.
        prior: [K] class shares.
        generator: draws the resamples.
        resamples: how many.
        level: coverage of the intervals, between 0 and 1.

    Returns:
        The estimate; without a single label its rates are 0.

    Raises:
        DataError: shapes do not fit, or a probability is out of its range.
        ConfigError: ``resamples`` or ``level`` is out of its range.

    Source: ours.
    """
    if resamples < 1:
        raise ConfigError(f"resamples must be 1 or more, not {resamples}; 200 are usual")
    if not 0 < level < 1:
        raise ConfigError(f"level must be between 0 and 1, not {level}; 0.95 is usual")
    _check(beliefs, labels, p_right, prior)
    known = labels != UNLABELLED
    ranks = _rank_images(beliefs, labels, p_right, prior)
    openness = _divide(ranks, known, p_right)
    wrong = np.where(known, 1 - p_right, 1.0)
    p_open = wrong * (1 - openness.p_closed)
    rates, opened = _resample(ranks[known], wrong[known], generator, resamples)
    rate = float(wrong[known].mean()) if known.any() else 0.0
    pairs = _count_pairs(beliefs, labels, p_right, p_open)
    transition = _share_rows(pairs)
    low, high = _bound_shares(transition, pairs.sum(1, keepdims=True), level)
    return NoiseEstimate(
        _bound(max(rate - openness.open_rate, 0.0), rates - opened, level),
        _bound(openness.open_rate, opened, level),
        p_open,
        transition,
        low,
        high,
    )


def estimate_transition(
    beliefs: Beliefs, labels: Int64s, p_right: Floats, p_open: Floats | None = None
) -> Floats:
    r"""Estimated transition matrix [true, given], rows sum to 1.

    .. math:: T_{kg} \propto \sum_{i: \tilde y_i = g}
              r_i [k = g] + (1 - r_i - o_i) [k \ne g] \frac{p_{ik}}{1 - p_{ig}}

    with r the probability that the given label is right and o the probability that the image belongs to no
    class. Where o is not given, open images, which have no true class, are spread over the classes they
    resemble.

    Args:
        beliefs: [N, K] distributions, or the largest of each.
        labels: [N] given labels, -1 where there is none.
        p_right: [N] probability that the given label is right.
        p_open: [N] probability that the image is of no class, at most 1 - p_right.

    Returns:
        [K, K]; a class that no image seems to have gets a row of zeros.

    Source: ours.
    """
    return _share_rows(_count_pairs(beliefs, labels, p_right, p_open))


def bound_noise_rate(p_right: Floats, rate: float) -> Interval:
    r"""The interval of a noise rate among these images, if each label is right as probably as it is said.

    .. math:: \eta \pm \frac{1.96}{N} \sqrt{\textstyle\sum_i r_i (1 - r_i)}

    It counts the draw alone of which labels are right, independently of each other: not other images, nor
    probabilities that mislead as a whole.

    Args:
        p_right: [N] probability that a label is right, labelled images only.
        rate: the estimated noise rate.

    Returns:
        The rate and its interval, within 0..1.

    Example:
        >>> bound_noise_rate(np.array([1.0, 1.0, 0.0, 1.0]), 0.25)
        Interval(value=0.25, low=0.25, high=0.25)
    """
    spread = 1.96 * math.sqrt(float((p_right * (1 - p_right)).sum())) / max(len(p_right), 1)
    return Interval(rate, max(0.0, rate - spread), min(1.0, rate + spread))


def _check(beliefs: Beliefs, labels: Int64s, p_right: Floats, prior: Floats) -> None:
    count, num_classes = beliefs.shape
    if labels.shape != (count,) or p_right.shape != (count,) or prior.shape != (num_classes,):
        raise DataError(
            f"beliefs {list(beliefs.shape)} need labels and p_right [{count}] and a prior [{num_classes}], "
            f"not {list(labels.shape)}, {list(p_right.shape)} and {list(prior.shape)}"
        )
    if not (p_right >= 0).all() or not (p_right <= 1).all():
        raise DataError("p_right holds probabilities in 0..1; these do not; pass those of an assessment")
    if not (prior > 0).all():
        raise DataError(
            f"the prior must be positive for every class, not {prior.min():g}, as that of estimate_prior is"
        )


def _rank_images(beliefs: Beliefs, labels: Int64s, p_right: Floats, prior: Floats) -> Floats:
    """Ranks of all images, as their shares [N, bins] in the bins of the unit interval."""
    classes, confidence = find_best(beliefs, prior)
    picked = np.where(labels != UNLABELLED, p_right**2, 0.0)
    return _spread(*_rank(classes, confidence, picked))


def _rank(classes: Int64s, values: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weighted shares [N], [N] of the same class's images strictly below each, and at or below it."""
    below, upto, total = _weigh_below(values, weights)
    scale = _POOLED / max(total, _TINY)
    below, upto = below * scale, upto * scale
    for label in np.unique(classes):
        own = classes == label
        lower, upper, total = _weigh_below(values[own], weights[own])
        below[own] = (below[own] + lower) / (_POOLED + total)
        upto[own] = (upto[own] + upper) / (_POOLED + total)
    return below, upto


def _weigh_below(values: Floats, weights: Floats) -> tuple[Floats, Floats, float]:
    """Weight of all strictly below each value, at or below it, and of all."""
    order = np.argsort(values, kind="stable")
    weight = np.concatenate([[0.0], np.cumsum(weights[order])])
    ordered = values[order]
    below = weight[np.searchsorted(ordered, values, side="left")]
    upto = weight[np.searchsorted(ordered, values, side="right")]
    return below, upto, float(weight[-1])


def _spread(low: Floats, high: Floats) -> Floats:
    """Share [N, bins] of each rank in each bin; a rank that ties leave open is spread evenly."""
    reached = np.clip((_EDGES - low[:, None]) / np.maximum(high - low, _TINY)[:, None], 0, 1)
    reached[:, 0], reached[:, -1] = 0, 1
    return np.asarray(np.diff(reached, axis=1))


def _divide(ranks: Floats, known: NDArray[np.bool_], p_right: Floats) -> Openness:
    """Open rate and probabilities from ranks [N, bins]."""
    counts, wrong = ranks[known].sum(0), (1 - p_right[known]) @ ranks[known]
    in_class = float(_largest_uniform(counts))
    density = _share_bins(counts) * _BINS
    density = IsotonicRegression(increasing=False).fit_transform(np.arange(_BINS), density)
    opened = np.maximum(1 - in_class / density, 0) * counts
    p_open = np.minimum(opened / np.maximum(wrong, _TINY), 1)
    open_rate = min(1 - in_class, float(wrong.sum() / max(counts.sum(), 1)))
    return Openness(open_rate, np.asarray(1 - ranks @ p_open))


def _share_bins(counts: Floats) -> Floats:
    """Shares of counts [..., bins] with one image's worth of a uniform, so that none is known to be none."""
    return np.asarray((counts + 1 / _BINS) / (counts.sum(-1, keepdims=True) + 1))


def _largest_uniform(counts: Floats) -> Floats:
    """The largest share of a uniform that fits under ranks [..., bins], one standard error allowed."""
    top = np.cumsum(_share_bins(counts)[..., ::-1], axis=-1)[..., _LEVELS - 1]
    errors = np.sqrt(top * (1 - top) / (counts.sum(-1, keepdims=True) + 1))
    return np.asarray(np.clip(((top + errors) / (_LEVELS / _BINS)).min(-1), 0, 1))


def _resample(
    ranks: Floats, wrong: Floats, generator: np.random.Generator, resamples: int
) -> tuple[Floats, Floats]:
    """Noise rates [R] and open rates [R] of resampled labelled images."""
    count = len(wrong)
    rates, counts = np.zeros(resamples), np.zeros((resamples, _BINS))
    for number in range(resamples if count else 0):
        drawn = generator.integers(count, size=count)
        rates[number] = np.mean(generator.random(count) < wrong[drawn])
        counts[number] = np.bincount(drawn, minlength=count) @ ranks
    return rates, np.minimum(1 - _largest_uniform(counts), rates)


def _bound(value: float, drawn: Floats, level: float) -> Interval:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, min(value, float(low)), max(value, float(high)))


def _bound_shares(shares: Floats, counts: Floats, level: float) -> tuple[Floats, Floats]:
    """Ends of Wilson's interval of shares among counts; about 0 and 1 where nothing was counted."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    counts = np.maximum(counts, _TINY)
    centre = (shares + z**2 / (2 * counts)) / (1 + z**2 / counts)
    spread = np.sqrt(shares * (1 - shares) / counts + (z / (2 * counts)) ** 2) * z / (1 + z**2 / counts)
    return np.clip(centre - spread, 0, 1), np.clip(centre + spread, 0, 1)


def _count_pairs(beliefs: Beliefs, labels: Int64s, p_right: Floats, p_open: Floats | None) -> Floats:
    """Expected number [true, given] of labelled images that have a class."""
    known = labels != UNLABELLED
    given, right = labels[known], p_right[known]
    moved = 1 - right if p_open is None else np.maximum(1 - right - p_open[known], 0)
    if isinstance(beliefs, TopBeliefs):
        counts = sum_beliefs(beliefs.select(known), given, moved)
        np.fill_diagonal(counts, np.bincount(given, right, minlength=len(counts)))
        return counts
    probs = beliefs[known].copy()
    rows = np.arange(len(given))
    probs[rows, given] = 0
    probs *= (moved / np.maximum(probs.sum(1), _TINY))[:, None]
    probs[rows, given] = right
    counts = np.zeros((beliefs.shape[1], beliefs.shape[1]))
    np.add.at(counts.T, given, probs)
    return counts


def _share_rows(counts: Floats) -> Floats:
    return np.asarray(counts / np.maximum(counts.sum(1, keepdims=True), _TINY))
