"""Two-part mixtures: which values belong to the lower part, as the losses of right labels do.

Networks fit right labels before wrong ones, so for a while the losses of the two are two heaps. A mixture of
two Gaussians finds them, without being told how many labels are wrong.
"""

import numpy as np
from sklearn.mixture import GaussianMixture

from lauter.data.dataset import Int64s
from lauter.errors import DataError
from lauter.noisy.beliefs import Floats

SMALLEST_GROUP = 50
"""Groups of fewer values have no mixture of their own: a handful would be split along its largest gap."""
_FLOOR = 5e-4  # added to both variances, in units of the squared range: no part may shrink to one value
_TOLERANCE = 1e-6  # gain of the mean log-likelihood, in nats, below which the fit has converged


def split_by_mixture(values: Floats, groups: Int64s | None = None) -> Floats:
    r"""How probably each value belongs to the lower of two Gaussian parts.

    .. math:: w_i = \frac{\pi_1 \, \mathcal N(x_i; \mu_1, \sigma_1^2)}
                         {\sum_{j=1}^2 \pi_j \, \mathcal N(x_i; \mu_j, \sigma_j^2)},
              \qquad \mu_1 \le \mu_2, \quad x_i = \frac{v_i - \min v}{\max v - \min v}

    The parts are fitted by expectation maximisation. It starts from the split into two that has the smallest
    sum of squares, which in one dimension is found exactly: nothing is random, the same values always give
    the same answer. The mean of w is the share of the lower part.

    A wide upper part reaches below a narrow lower one, so w may fall again for the very smallest values.

    Args:
        values: [N] finite numbers of any scale, such as losses.
        groups: [N] a group of each value, such as its class: a mixture is fitted to each group's values
            alone, scaled by their own range. Groups of fewer than ``SMALLEST_GROUP`` values and groups whose
            values are all equal are judged by the mixture of all values. None fits that one alone.

    Returns:
        [N] probabilities, never NaN. Where all values are equal there is one part, the lower one: all 1.

    Raises:
        DataError: the values are not a row of finite numbers, or the groups do not go with them.

    Example:
        >>> split_by_mixture(np.array([0.1, 0.2, 0.1, 2.0, 2.1])).round(3)
        array([1., 1., 1., 0., 0.])

    Source: a two-part Gaussian mixture on the losses, with this floor under its variances: Li, Socher and Hoi
    (2020), arXiv 2002.07394. Departures: the start; the fit goes on until it has converged; groups.
    """
    values = np.asarray(values, dtype=np.float64)
    _check_values(values, groups)
    posterior = _split(values)
    if groups is not None:
        order = np.argsort(groups, kind="stable")
        _, first = np.unique(groups[order], return_index=True)
        for members in np.split(order, first[1:]):
            own = values[members]
            if len(own) >= SMALLEST_GROUP and own.min() < own.max():
                posterior[members] = _split(own)
    return posterior


def _check_values(values: Floats, groups: Int64s | None) -> None:
    if values.ndim != 1:
        raise DataError(f"a mixture is fitted to values [N], not {list(values.shape)}")
    broken = np.flatnonzero(~np.isfinite(values))
    if len(broken):
        raise DataError(
            f"a mixture needs finite values, but {len(broken)} of {len(values)} are not, the first in row "
            f"{broken[0]} ({values[broken[0]]}); leave out what has no value"
        )
    if groups is not None and groups.shape != values.shape:
        raise DataError(
            f"a mixture needs one group per value, not groups {list(groups.shape)} for {len(values)} values"
        )


def _split(values: Floats) -> Floats:
    """Posterior [N] of the lower part of one mixture."""
    if not len(values) or values.min() == values.max():
        return np.ones(len(values))
    scaled = (values - values.min()) / np.ptp(values)
    lower, upper = _cut_in_two(scaled)
    mixture = GaussianMixture(
        2,
        covariance_type="spherical",
        tol=_TOLERANCE,
        reg_covar=_FLOOR,
        max_iter=1000,
        weights_init=[len(lower) / len(scaled), len(upper) / len(scaled)],
        means_init=[[lower.mean()], [upper.mean()]],
        precisions_init=[1 / (lower.var() + _FLOOR), 1 / (upper.var() + _FLOOR)],
    )
    posterior = mixture.fit(scaled[:, None]).predict_proba(scaled[:, None])
    return np.asarray(posterior[:, mixture.means_[:, 0].argmin()], dtype=np.float64)


def _cut_in_two(values: Floats) -> tuple[Floats, Floats]:
    """Cut sorted values where the two parts' sums of squares are smallest together: exact two-means."""
    ordered = np.sort(values)
    total = len(ordered)
    below = np.arange(1, total)
    sums = np.cumsum(ordered)
    lower_means = sums[:-1] / below
    upper_means = (sums[-1] - sums[:-1]) / (total - below)
    # What the parts leave is smallest where what stands between them is largest.
    cut = 1 + int(np.argmax(below * (total - below) * (upper_means - lower_means) ** 2))
    return ordered[:cut], ordered[cut:]
