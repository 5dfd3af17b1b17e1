r"""Where doubt becomes a finding: what each cut is expected to bring, and which one is best.

With the labels in the order of their doubt :math:`w_i = 1 - r_i`, calling the c most doubtful ones wrong is
expected to find :math:`\sum_{i \le c} w_i` of :math:`W = \sum_i w_i` wrong labels. So

.. math:: \text{precision}(c) = \frac{1}{c} \sum_{i \le c} w_i, \qquad
          \text{recall}(c) = \frac{1}{W} \sum_{i \le c} w_i, \qquad
          F_1(c) = \frac{2 \sum_{i \le c} w_i}{c + W}

and the cut is where :math:`F_1` is largest, which is where the doubt falls below half of it (ours, from the
plain expectation; the ratio of expectations stands for the expected ratio).

Where the classifier often errs, the noise rate itself is unsure (``noise_rates.py``), and too few labels
called wrong cost more F1 than too many. So the cut, and nothing else, is made as if the rate were higher by
three standard errors of that kind.
"""

import numpy as np

from lauter.auditing.judgement import Cuts, ReviewPlan
from lauter.data.dataset import Int64s
from lauter.errors import ConfigError
from lauter.noisy.beliefs import Floats

MOST_CUTS = 200
"""Cuts that are listed; more cannot be told apart in a picture."""


def order_by_doubt(doubt: Floats) -> Int64s:
    """Rows [M] by doubt, the largest first; of equals the first row goes first."""
    return np.asarray(np.argsort(-doubt, kind="stable"), dtype=np.int64)


def choose_cut(doubt: Floats) -> int:
    """How many labels to call wrong, so that the expected F1 is largest.

    Args:
        doubt: [M] probability that each label is wrong.

    Returns:
        A count in 0..M; equals are called wrong together. 0 where no label is expected to be wrong.

    Example:
        >>> choose_cut(np.array([0.9, 0.1, 0.8, 0.0]))
        2
    """
    ordered = np.sort(doubt)[::-1]
    total = float(ordered.sum())
    if total <= 0:
        return 0
    expected = 2 * np.cumsum(ordered) / (np.arange(1, len(ordered) + 1) + total)
    ends = np.flatnonzero(np.append(ordered[1:] < ordered[:-1], True))
    return int(ends[expected[ends].argmax()]) + 1


def raise_doubt(doubt: Floats, lift: float) -> Floats:
    r"""Doubts in the same order, with odds that are multiplied until their mean is higher.

    .. math:: w_i' = \frac{c w_i}{1 - w_i + c w_i}, \qquad \frac{1}{M} \sum_i w_i' = \bar w + \text{lift}

    Args:
        doubt: [M] probabilities.
        lift: how much the mean rises, 0 or more; it stops short of what certain labels do not allow.

    Example:
        >>> raise_doubt(np.array([0.5, 0.5]), 0.25).round(3)
        array([0.75, 0.75])
    """
    if lift <= 0 or not len(doubt):
        return doubt
    goal = float(doubt.mean()) + lift
    low, high = 0.0, 12.0  # logarithm of c
    for _ in range(40):
        middle = (low + high) / 2
        if _multiply_odds(doubt, middle).mean() < goal:
            low = middle
        else:
            high = middle
    return _multiply_odds(doubt, high)


def choose_cut_at(doubt: Floats, keep_above: float) -> int:
    """How many labels are right with less than a stated probability, and so called wrong.

    Raises:
        ConfigError: it is not a probability.
    """
    if not 0 <= keep_above <= 1:
        raise ConfigError(f"keep_above must be a probability in 0..1, not {keep_above}")
    return int((1 - doubt < keep_above).sum())


def list_cuts(doubt: Floats, chosen: int) -> Cuts:
    """What is expected at growing cuts, the chosen one among them.

    Args:
        doubt: [M] probability that each label is wrong.
        chosen: how many labels are called wrong, 0..M.

    Returns:
        At most ``MOST_CUTS`` cuts, evenly spaced in the number of labels; precision 1 where none is called
        wrong, and recall 1 where none is expected to be.
    """
    ordered = np.sort(doubt)[::-1]
    spaced = np.linspace(0, len(ordered), min(MOST_CUTS - 1, len(ordered) + 1)).round().astype(np.int64)
    flagged = np.union1d(spaced, [chosen]).astype(np.int64)
    found = np.concatenate([[0.0], np.cumsum(ordered)])
    ends = np.concatenate([[1.0], 1 - ordered])
    precision = np.where(flagged > 0, found[flagged] / np.maximum(flagged, 1), 1.0)
    recall = np.clip(found[flagged] / found[-1], 0, 1) if found[-1] > 0 else np.ones(len(flagged))
    threshold = np.where(flagged > 0, ends[flagged], 0.0)
    return Cuts(flagged, threshold, precision, recall, int(np.searchsorted(flagged, chosen)))


def plan_review(doubt: Floats, rows: Int64s, length: int) -> ReviewPlan:
    """Which images to look at first: those with the most doubtful labels.

    Args:
        doubt: [M] probability that each label is wrong.
        rows: [M] which images they belong to.
        length: how many at most.
    """
    order = order_by_doubt(doubt)[:length]
    return ReviewPlan(rows[order], np.cumsum(doubt[order]))


def _multiply_odds(doubt: Floats, log_factor: float) -> Floats:
    raised = np.exp(log_factor) * doubt
    return np.asarray(raised / (1 - doubt + raised))
