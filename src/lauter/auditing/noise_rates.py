r"""Noise rates with intervals that count more than sampling.

The rate itself is the mean of 1 - r. Its error has three parts, taken as independent:

- *sampling*: which labels happen to be wrong, :math:`\sqrt{\sum_i r_i (1 - r_i)} / N`;
- *misfit*: noise is of a kind that the model does not quite have, the more the more noise there is,
  :math:`0.022 \cdot 2 \sqrt{\eta (1 - \eta)}`;
- *blur*: where the classifier errs, its errors and wrong labels look alike. How often it errs is seen from
  how often it disagrees, d, beyond the noise: :math:`0.03 \, (d - \eta) / (1 - \eta)`.

The two factors are standard errors, found on corruptions of CIFAR-10 and of small digits with known truth
(symmetric, pair, asymmetric, instance-dependent, open and human labels): the misfit on features that tell
classes apart, where next to nothing is blurred, and the blur on poor ones.

Where this falls short: on features that mistake more than about every third image for another class, the
errors are not random but of one sign for one kind of noise. Labels that go wrong regardless of the image are
overestimated there, those that go wrong on look-alikes underestimated.
"""

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from lauter.auditing.calibration import Calibration
from lauter.data.dataset import UNLABELLED, Int64s
from lauter.evaluation.intervals import Interval
from lauter.noisy.beliefs import Floats
from lauter.noisy.estimates import estimate_noise
from lauter.noisy.top_beliefs import TopBeliefs

MISFIT, BLUR = 0.022, 0.03
"""Standard errors of a noise rate for each unit of the two systematic parts."""
_RESAMPLES = 50
_POOLING = 10.0  # images by which a class's noise rate is drawn to the overall one


@dataclass(frozen=True, eq=False)
class NoiseRates:
    """How much noise of which kind there is; attributes as those of a judgement."""

    noise_rate: Interval
    closed_rate: Interval
    open_rate: Interval
    by_class: Floats
    p_open: Floats
    transition: Floats
    transition_low: Floats
    transition_high: Floats


def rate_noise(
    beliefs: TopBeliefs,
    labels: Int64s,
    calibration: Calibration,
    prior: Floats,
    level: float,
    generator: np.random.Generator,
) -> NoiseRates:
    """Estimate all noise rates, with intervals.

    Args:
        beliefs: out-of-fold, under the training prior.
        labels: [N] given labels, -1 where there is none.
        calibration: what the noise model says.
        prior: [K] class shares.
        level: coverage of the intervals.
        generator: draws resamples.

    Returns:
        The rates; all 0 without a labelled image.
    """
    known = labels != UNLABELLED
    right = calibration.p_right[known]
    rate = float(np.mean(1 - right)) if len(right) else 0.0
    kinds = estimate_noise(
        beliefs, labels, calibration.p_right, prior, generator, resamples=_RESAMPLES, level=level
    )
    systematic = bound_systematic(rate, calibration.errors)
    sampling = math.sqrt(float((right * (1 - right)).sum())) / max(len(right), 1)
    factor = NormalDist().inv_cdf((1 + level) / 2)
    half = factor * math.hypot(sampling, systematic)
    opened, closed = (
        _widen(interval, factor * systematic) for interval in (kinds.open_rate, kinds.closed_rate)
    )
    counts = np.bincount(labels[known], minlength=beliefs.num_classes)
    sums = np.bincount(labels[known], 1 - right, minlength=beliefs.num_classes)
    by_class = (sums + _POOLING * rate) / (counts + _POOLING)
    return NoiseRates(
        Interval(rate, max(rate - half, 0.0), min(rate + half, 1.0)),
        closed,
        opened,
        by_class,
        kinds.p_open,
        kinds.transition,
        kinds.transition_low,
        kinds.transition_high,
    )


def admit_ignorance(rates: NoiseRates, agreement: float) -> NoiseRates:
    """The same rates with intervals that say what is left to say where the beliefs tell nothing.

    Args:
        rates: of :func:`rate_noise`.
        agreement: of the surest images with their labels: more labels can hardly be right than that, so the
            noise lies between none and the rest, or the estimate's own upper end.
    """

    def open_up(interval: Interval) -> Interval:
        return Interval(interval.value, 0.0, max(interval.high, 1 - agreement))

    return replace(
        rates,
        noise_rate=open_up(rates.noise_rate),
        closed_rate=open_up(rates.closed_rate),
        open_rate=open_up(rates.open_rate),
    )


def bound_systematic(rate: float, errors: float) -> float:
    """Standard error of a noise rate, sampling aside; see the head of this file.

    Args:
        rate: the estimate.
        errors: share of images that the classifier behind the beliefs errs on.

    Example:
        >>> round(bound_systematic(0.2, 0.1), 4)
        0.0179
    """
    return math.hypot(MISFIT * 2 * math.sqrt(rate * (1 - rate)), BLUR * errors)


def _widen(interval: Interval, half: float) -> Interval:
    low = interval.value - math.hypot(interval.value - interval.low, half)
    high = interval.value + math.hypot(interval.high - interval.value, half)
    return Interval(interval.value, max(low, 0.0), min(high, 1.0))
