"""Intervals: a stratified bootstrap within a seed, a t interval of paired differences over seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lauter.errors import DataError
from lauter.evaluation.counts import (
    CLOSED_METRICS,
    NONE,
    ClassCounts,
    Floats,
    count_classes,
    pair_labels,
)
from lauter.evaluation.metrics import open_auroc

CountMetrics = Mapping[str, Callable[[ClassCounts], Floats]]


@dataclass(frozen=True)
class Interval:
    """A value and the interval around it.

    Attributes:
        value: the estimate.
        low: lower end.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise DataError(f"an interval needs low <= high, not {self.low} and {self.high}")

    def to_dict(self) -> dict[str, float]:
        """``{"value", "low", "high"}``, as metrics.json holds it."""
        return asdict(self)


@dataclass(frozen=True)
class PairedDifference:
    """How one method differs from another over the same seeds.

    Attributes:
        mean: mean difference, first minus second.
        std: sample standard deviation of the differences.
        low: lower end of the t interval of the mean.
        high: upper end.
        num_seeds: pairs it stands on.
    """

    mean: float
    std: float
    low: float
    high: float
    num_seeds: int


def resample_counts(
    predictions: NDArray[np.integer[Any]],
    true_labels: NDArray[np.integer[Any]],
    num_classes: int,
    generator: np.random.Generator,
    resamples: int = 1000,
) -> ClassCounts:
    """Draw stratified bootstrap resamples of a test set, as class counts.

    Within a class the images differ, for these metrics, only in what they were predicted as. So drawing n_k
    of them with replacement is one multinomial draw over the class's row of the confusion matrix, exactly;
    only cells that occur are drawn, so that a thousand classes cost little. Images of no class are one more
    stratum.

    Args:
        predictions: [N] predicted class, or -1.
        true_labels: [N] true class, or -1 for images of no class.
        num_classes: K.
        generator: source of the draws.
        resamples: R.

    Returns:
        Counts with arrays [R, K]; support is the same in every resample.
    """
    predicted, truth = pair_labels(predictions, true_labels, num_classes)
    if resamples < 1:
        raise DataError(f"resamples must be 1 or more, not {resamples}")
    width = num_classes + 1
    # Column K stands for "no class", in truth and in prediction.
    codes, cells = np.unique((truth % width) * width + predicted % width, return_counts=True)
    rows, columns = np.divmod(codes, width)
    hits, given, strays = (np.zeros((resamples, width), dtype=np.int64) for _ in range(3))
    starts = np.append(np.flatnonzero(np.diff(rows, prepend=-1)), len(rows))
    for start, stop in pairwise(starts):
        row, column, cell = int(rows[start]), columns[start:stop], cells[start:stop]
        drawn = generator.multinomial(cell.sum(), cell / cell.sum(), size=resamples)
        if row == num_classes:
            strays[:, column] += drawn
        else:
            given[:, column] += drawn
            hits[:, row] = drawn[:, column == row].sum(-1)
    support = np.bincount(truth[truth != NONE], minlength=num_classes).astype(np.int64)
    return ClassCounts(
        hits=hits[:, :-1],
        support=np.broadcast_to(support, (resamples, num_classes)),
        predicted=given[:, :-1],
        strays=strays[:, :-1],
    )


def bootstrap_metrics(
    predictions: NDArray[np.integer[Any]],
    true_labels: NDArray[np.integer[Any]],
    num_classes: int,
    generator: np.random.Generator,
    metrics: CountMetrics = CLOSED_METRICS,
    resamples: int = 1000,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Metrics of one test set with their stratified bootstrap percentile intervals.

    It says how far the number would move with another test set of the same make-up, not with another
    training run. For ``worst_class_recall`` the interval leans downwards: a minimum over resampled classes
    is smaller on average than the minimum itself.

    Args:
        predictions: [N] predicted class, or -1.
        true_labels: [N] true class, or -1 for images of no class.
        num_classes: K.
        generator: source of the draws.
        metrics: name -> function of :class:`ClassCounts`.
        resamples: bootstrap resamples.
        level: coverage of the interval, between 0 and 1.

    Returns:
        An interval for each metric.

    Raises:
        DataError: shapes or ranges do not fit, or no image has a class.
    """
    counts = count_classes(predictions, true_labels, num_classes)
    drawn = resample_counts(predictions, true_labels, num_classes, generator, resamples)
    return {name: _percentiles(float(of(counts)), of(drawn), level) for name, of in metrics.items()}


def bootstrap_auroc(
    known_scores: NDArray[Any],
    true_labels: NDArray[np.integer[Any]],
    generator: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """:func:`open_auroc` with its bootstrap interval, known and open images resampled apart.

    Args:
        known_scores: [N] higher means more likely of a known class.
        true_labels: [N] true class, or -1 for images of no class.
        generator: source of the draws.
        resamples: bootstrap resamples.
        level: coverage of the interval, between 0 and 1.
    """
    value = open_auroc(known_scores, true_labels)
    levels, ranks = np.unique(np.asarray(known_scores, dtype=np.float64), return_inverse=True)
    is_known = np.asarray(true_labels) != NONE
    known, stray = ranks[is_known], ranks[~is_known]
    drawn = np.empty(resamples)
    for r in range(resamples):
        # As histograms over the sorted scores: no resample needs a sort of its own.
        above = np.bincount(generator.choice(known, len(known)), minlength=len(levels))
        below = np.bincount(generator.choice(stray, len(stray)), minlength=len(levels))
        drawn[r] = above @ (np.cumsum(below) - below / 2)
    return _percentiles(value, drawn / (len(known) * len(stray)), level)


def _percentiles(value: float, drawn: Floats, level: float) -> Interval:
    if not 0 < level < 1:
        raise DataError(f"level must be between 0 and 1, not {level}; 0.95 is usual")
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def paired_difference(
    values_a: Sequence[float] | Floats, values_b: Sequence[float] | Floats, level: float = 0.95
) -> PairedDifference:
    """Difference a - b of two methods over the same seeds, with its t interval.

    Args:
        values_a: [S] results of the first method, by seed.
        values_b: [S] results of the second, in the same order of seeds.
        level: coverage of the interval, between 0 and 1.

    Raises:
        DataError: lengths differ, a value is not finite, or there are fewer than two seeds.
    """
    a, b = np.asarray(values_a, dtype=np.float64), np.asarray(values_b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise DataError(
            f"pairs need the same seeds on both sides, not {list(a.shape)} and {list(b.shape)} values"
        )
    if len(a) < 2:
        raise DataError(f"an interval of a difference needs two seeds or more, not {len(a)}; run more seeds")
    if not 0 < level < 1:
        raise DataError(f"level must be between 0 and 1, not {level}; 0.95 is usual")
    difference = a - b
    if not np.isfinite(difference).all():
        raise DataError("values must be finite; one of the runs gave NaN or infinity")
    mean, std = float(difference.mean()), float(difference.std(ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, len(a) - 1)) * std / len(a) ** 0.5
    return PairedDifference(mean, std, mean - half, mean + half, len(a))
