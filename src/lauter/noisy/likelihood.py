r"""How well beliefs explain the given labels, if some of these are wrong.

The plain likelihood of doubtful labels prefers beliefs that hedge: one wrong label that is believed to be
wrong costs more than a hundred right ones gain. So the beliefs are taken to speak of the true labels, and a
share :math:`\eta` of the given ones to be drawn from the class shares instead:

.. math:: L = \max_\eta \frac{1}{n} \sum_i
          \log\left((1 - \eta) \, p_i[\tilde y_i] + \eta \, \pi[\tilde y_i]\right)

By this, and never by a truth, settings of beliefs are compared. Ours.
"""

import numpy as np

from lauter.data.dataset import UNLABELLED, Int64s
from lauter.errors import DataError
from lauter.noisy.beliefs import Floats

_RATES = np.concatenate([[0.0], np.geomspace(0.002, 0.9, 40)])
_TINY = 1e-12


def score_under_noise(own: Floats, shares: Floats) -> tuple[float, float]:
    """Mean log-likelihood of given labels under the noise that suits it best.

    Args:
        own: [n] beliefs in the given labels.
        shares: [n] class shares of these labels.

    Returns:
        L, and the share of labels that were taken as drawn at random.

    Raises:
        DataError: shapes differ, or there is no label.

    Example:
        >>> sure, hedging = np.array([0.99, 0.99, 0.99, 0.001]), np.array([0.6, 0.6, 0.6, 0.4])
        >>> shares = np.full(4, 0.5)
        >>> bool(np.log(sure).mean() < np.log(hedging).mean())
        True
        >>> score_under_noise(sure, shares)[0] > score_under_noise(hedging, shares)[0]
        True
    """
    if own.shape != shares.shape or own.ndim != 1 or not len(own):
        raise DataError(
            f"labels are scored by beliefs and class shares [n] of one label or more, "
            f"not {list(own.shape)} and {list(shares.shape)}"
        )
    scores = [float(np.log((1 - rate) * own + rate * shares + _TINY).mean()) for rate in _RATES]
    best = int(np.argmax(scores))
    return scores[best], float(_RATES[best])


def share_labels(labels: Int64s, num_classes: int) -> Floats:
    """Class shares [K] of the given labels as they are; of -1, which is no label, there is none."""
    counts = np.bincount(labels[labels != UNLABELLED], minlength=num_classes)
    return np.asarray(counts / max(counts.sum(), 1))
