r"""The threshold of correction that sets itself: how many suggested labels would be right?

A fixed threshold on confidence means another precision on every data set: a network is sure of many images
of no class. So the precision is asked for instead, and the confidence that gives it is found from what can be
seen without the truth (all of it ours). A suggested label :math:`s_i \ne \tilde y_i` is right if the given
label is wrong, the image is of one of the classes, and of the one that is suggested:

.. math:: \pi_i = (1 - r_i) \; P(\text{closed} \mid \text{wrong}, v_i) \; a(c_i)

- The first factor is the filter's.
- The second tells open from closed by the image's rank among images of the class it resembles
  (``estimates.py``).
- The third is the precision of suggestions on images that have a class. Those that carry a right label show
  it, if the label is taken as unknown: a(c) is the closest increasing function of the confidence c to
  :math:`[s_j = \tilde y_j]`, image j weighing :math:`r_j`.

The mean of :math:`\pi_i` over the images that would be corrected is the expected precision. Where the given
label is suggested again, nothing is corrected but its weight, and :math:`\pi_i = r_i`.

Where this falls short: images of no class that are taken for a class as surely as that class's own are not
seen, and the expectation comes out too high; labels that go wrong on unclear images above all look open, and
it comes out too low. A network also knows the images whose labels it learns better than others, so a(c) is a
little high where the beliefs stem from training on these very labels.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from lauter.data.dataset import UNLABELLED, Int64s
from lauter.errors import ConfigError, DataError
from lauter.noisy.beliefs import Floats
from lauter.noisy.estimates import tell_open
from lauter.noisy.top_beliefs import Beliefs, find_best


def expect_right(
    beliefs: Beliefs, labels: Int64s, p_right: Floats, prior: Floats, trusted: NDArray[np.bool_]
) -> Floats:
    r"""How probably each image's suggested label (its best class, the prior taken out) is the right one.

    Args:
        beliefs: [N, K] under the training prior, or the largest of them.
        labels: [N] given labels, -1 where there is none; for those as if a label were wrong.
        p_right: [N] probability that the given label is right.
        prior: [K] class shares.
        trusted: [N] images that may be corrected if they are confident (their sources agree, say); a(c) is
            found among these, so that it profits from what is asked of them.

    Returns:
        [N] in 0..1; 0 for images that are not trusted, and everywhere if none of the trusted has a label
        that may be right: nothing speaks for a suggestion then.

    Raises:
        DataError: shapes do not fit, or a probability is out of its range.

    Source: ours.
    """
    if trusted.shape != labels.shape:
        raise DataError(f"trusted must be one per image, {list(labels.shape)}, not {list(trusted.shape)}")
    p_closed = tell_open(beliefs, labels, p_right, prior).p_closed
    suggested, confidence = find_best(beliefs, prior)
    known = labels != UNLABELLED
    right = np.where(known, p_right, 0.0)
    shown = np.flatnonzero(trusted & (right > 0))
    if not len(shown):
        return np.zeros(len(labels))
    curve = IsotonicRegression(y_min=0, y_max=1, increasing=True, out_of_bounds="clip")
    hits = (suggested[shown] == labels[shown]).astype(np.float64)
    curve.fit(confidence[shown], hits, sample_weight=right[shown])
    expected = (1 - right) * p_closed * curve.predict(confidence)
    again = known & (suggested == labels)
    return np.asarray(np.where(trusted, np.where(again, right, expected), 0.0))


def choose_confidence(
    confidence: Floats, expected: Floats, eligible: NDArray[np.bool_], precision: float
) -> float:
    """The smallest confidence above which the eligible images are expected to reach a precision.

    Args:
        confidence: [N] beliefs in the suggested labels.
        expected: [N] of :func:`expect_right`.
        eligible: [N] images that are corrected where they pass.
        precision: expected share of right labels among them, within (0, 1].

    Returns:
        The confidence to pass (at least), of one of the eligible images; infinite where even the most
        confident ones fall short.

    Raises:
        ConfigError: the precision is out of its range.

    Example:
        >>> choose_confidence(
        ...     np.array([0.9, 0.8, 0.7]), np.array([1.0, 0.8, 0.3]), np.array([True, True, True]), 0.8
        ... )
        0.8
    """
    if not 0 < precision <= 1:
        raise ConfigError(f"precision must be in (0, 1], not {precision}; 0.8 asks for 4 right labels in 5")
    rows = np.flatnonzero(eligible)
    rows = rows[np.argsort(-confidence[rows], kind="stable")]
    ordered = confidence[rows]
    means = np.cumsum(expected[rows]) / np.arange(1, len(rows) + 1)
    last = np.append(ordered[1:] < ordered[:-1], True)[: len(rows)]  # equals pass or fail together
    passing = np.flatnonzero(last & (means >= precision))
    return float(ordered[passing[-1]]) if len(passing) else float("inf")
