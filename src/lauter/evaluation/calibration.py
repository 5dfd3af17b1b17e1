"""Calibration beyond fixed bins: bins of equal count, and how much better than the base rate."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lauter.errors import DataError
from lauter.evaluation.metrics import Bools, brier, check_probs


def adaptive_calibration_error(probs: NDArray[Any], outcomes: Bools, num_bins: int = 15) -> float:
    r"""Mean distance between what is promised and what happens, over bins that hold equally many promises.

    .. math:: \sum_m \frac{|B_m|}{N} \left| \overline{p}_m - \overline{o}_m \right|

    Bins of equal width, those of :func:`lauter.evaluation.expected_calibration_error`, hold most promises of
    a sharp model in the first and the last of them, and what goes wrong inside of these cancels out. Here a
    bin's borders are the quantiles of the promises.

    Args:
        probs: [N] promised probabilities, in 0..1.
        outcomes: [N] whether it was so.
        num_bins: how many bins; with fewer promises than that, each is a bin of its own. Equal promises
            share a bin, however many they are: which of them happened first says nothing.

    Returns:
        0 (calibrated) to 1.

    Raises:
        DataError: a probability is outside 0..1, lengths differ, there are none, or no bin.

    Source: Nguyen and O'Connor (2015), arXiv 1508.05154, for bins of equal count. Departures: ties stay
    together; the mean of the distances, as for bins of equal width, where theirs is of their squares.
    """
    promised, happened = check_probs(probs, outcomes)
    if num_bins < 1:
        raise DataError(f"num_bins must be 1 or more, not {num_bins}")
    count = len(promised)
    _, kinds = np.unique(promised, return_inverse=True)
    # A run of equal promises goes where its middle lies among all of them.
    lengths = np.bincount(kinds)
    middles = np.cumsum(lengths) - (lengths + 1) / 2
    bins = (middles * min(num_bins, count) / count).astype(np.int64)
    gap = np.bincount(bins[kinds], weights=promised - happened)
    return float(np.abs(gap).sum() / count)


def brier_skill(probs: NDArray[Any], outcomes: Bools) -> float:
    r"""How much of the base rate's Brier score a promise takes away.

    .. math:: 1 - \frac{\frac{1}{N} \sum_i (p_i - o_i)^2}{\bar o (1 - \bar o)}

    The base rate promises :math:`\bar o`, the share that happened, to everything: it is calibrated and knows
    nothing.

    Args:
        probs: [N] promised probabilities, in 0..1.
        outcomes: [N] whether it was so.

    Returns:
        1 (certain and right) down to 0 (no better than the base rate) and below.

    Raises:
        DataError: a probability is outside 0..1, lengths differ, there are none, or all outcomes are the
            same: the base rate is then never wrong.

    Source: the skill score of weather forecasting for the score of Brier (1950); the reference is the
    sample's own base rate.

    Example:
        >>> brier_skill(np.array([0.5, 0.5, 1.0, 0.0]), np.array([True, False, True, False]))
        0.5
    """
    promised, happened = check_probs(probs, outcomes)
    rate = float(happened.mean())
    if rate in (0.0, 1.0):
        raise DataError(
            f"a skill is measured against the base rate, and all {len(promised)} outcomes are the same"
        )
    return 1 - brier(promised, happened > 0) / (rate * (1 - rate))
