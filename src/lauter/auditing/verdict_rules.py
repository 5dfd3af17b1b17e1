"""From probabilities to verdicts: relabel and drop only at the stated precision, ask about the rest.

Rules are ours. A label that is called wrong is relabelled where the suggestion is sure enough that, of all
labels so corrected, the stated share is expected to be right; else dropped where the label is sure enough to
be wrong, in the same sense; else it is a question for a person.

A classifier is sure of some of its errors, and no model of the labels tells these from wrong labels. So what
is expected is discounted by a twentieth of the share of images that it errs on.
"""

import math

import numpy as np
from numpy.typing import NDArray

from lauter.data.dataset import UNLABELLED, Int64s
from lauter.noisy.beliefs import Floats

Bools = NDArray[np.bool_]
SURE_ERRORS = 0.05
"""Share of a classifier's errors that it is sure of."""


def take_at_precision(probability: Floats, eligible: Bools, precision: float) -> Bools:
    """As many of the most probable as are expected to be right at a precision, on average.

    Args:
        probability: [N] that acting is right.
        eligible: [N] where one may act.
        precision: least mean of the probabilities.

    Returns:
        [N] mask; equals are taken or left together.

    Example:
        >>> take_at_precision(np.array([1.0, 0.9, 0.5, 1.0]), np.array([True, True, True, False]), 0.95)
        array([ True,  True, False, False])
    """
    rows = np.flatnonzero(eligible)
    rows = rows[np.argsort(-probability[rows], kind="stable")]
    ordered = probability[rows]
    means = np.cumsum(ordered) / np.arange(1, len(rows) + 1)
    ends = np.append(ordered[1:] < ordered[:-1], True)[: len(rows)]
    passing = np.flatnonzero(ends & (means >= precision - 1e-9))
    taken = np.zeros(len(probability), dtype=bool)
    if len(passing):
        taken[rows[: passing[-1] + 1]] = True
    return taken


def decide_verdicts(
    labels: Int64s,
    flagged: Bools,
    p_right: Floats,
    p_suggested: Floats,
    precision: float,
    cap: float,
    errors: float = 0.0,
) -> NDArray[np.str_]:
    """One verdict for each image.

    Args:
        labels: [N] given labels, -1 where there is none.
        flagged: [N] labels that are called wrong.
        p_right: [N] probability that the given label is right.
        p_suggested: [N] probability that the suggested one is.
        precision: expected share of right decisions among those to relabel, and among those to drop.
        cap: largest share of a class's labels that may be relabelled and dropped; what exceeds it is asked.
        errors: share of images that the classifier behind the beliefs errs on.

    Returns:
        [N] of ``VERDICTS``; an unlabelled image is relabelled or asked about.
    """
    bare = labels == UNLABELLED
    honest = 1 - SURE_ERRORS * errors
    relabelled = take_at_precision(honest * p_suggested, flagged & ~bare, precision)
    relabelled |= take_at_precision(honest * p_suggested, bare, precision)
    dropped = take_at_precision(honest * (1 - p_right), flagged & ~bare & ~relabelled, precision)
    verdicts = np.full(len(labels), "keep", dtype="<U7")
    verdicts[flagged | bare] = "ask"
    verdicts[relabelled] = "relabel"
    verdicts[dropped] = "drop"
    verdicts[_find_excess(labels, (relabelled | dropped) & ~bare, p_right, cap)] = "ask"
    return verdicts


def _find_excess(labels: Int64s, removed: Bools, p_right: Floats, cap: float) -> Int64s:
    """Rows beyond what a class may lose, its most credible labels first."""
    excess = [np.zeros(0, dtype=np.int64)]
    rows = np.flatnonzero(removed)
    sizes = np.bincount(labels[labels != UNLABELLED]) if (labels != UNLABELLED).any() else np.zeros(0)
    for label in np.unique(labels[rows]):
        own = rows[labels[rows] == label]
        surplus = len(own) - math.floor(cap * float(sizes[label]) + 1e-9)
        if surplus > 0:
            excess.append(own[np.argsort(-p_right[own], kind="stable")[:surplus]])
    return np.concatenate(excess)
