"""Average precision for images with several labels, some unknown, with a bootstrap over the images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lauter.errors import DataError
from lauter.evaluation.counts import Floats
from lauter.evaluation.intervals import Interval

_BLOCK = 2**20
"""Weights that are looked at together; bounds the memory of a bootstrap to some tens of MiB."""


@dataclass(frozen=True, eq=False)
class MultiLabelScores:
    """Scores of one set of predictions.

    Attributes:
        mean_average_precision: mean of the classes' average precisions, with its interval.
        average_precision: [K]; NaN for a class without an image to find.
    """

    mean_average_precision: Interval
    average_precision: Floats

    def to_dict(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """As metrics.json holds it; None for a class without an image to find."""
        values = self.average_precision.tolist()
        return {
            "mean_average_precision": self.mean_average_precision.to_dict(),
            "average_precision": {
                name: None if np.isnan(value) else value
                for name, value in zip(class_names, values, strict=True)
            },
        }


def average_precision(scores: NDArray[Any], targets: NDArray[np.integer[Any]]) -> Floats:
    r"""Average precision of each class: the area under its steps of precision over recall.

    .. math:: \mathrm{AP} = \sum_i (R_i - R_{i-1}) P_i

    over the distinct scores from the highest on; images of equal score come in together. There is no
    interpolation: this is neither the 11-point measure of Pascal VOC 2007 nor the envelope of later years.

    Args:
        scores: [N, K]; higher means more likely there. Logits and probabilities rank alike.
        targets: [N, K]: 1 present, 0 absent, -1 not scored.

    Returns:
        float64 [K], in 0..1; NaN for a class without an image to find.

    Raises:
        DataError: the shapes or the targets' values do not fit, or a score is NaN.

    Example:
        >>> average_precision(np.array([[0.9], [0.8], [0.1]]), np.array([[1], [0], [1]])).round(3)
        array([0.833])

    Source: the usual definition (Manning, Raghavan and Schütze, 2008, chapter 8). Scoring around unknown
    labels follows the classification task of the VOC development kit, which leaves difficult objects out.
    """
    values, given = _check(scores, targets)
    return np.array([_Ranking(values[:, k], given[:, k]).score() for k in range(values.shape[1])])


def mean_average_precision(scores: NDArray[Any], targets: NDArray[np.integer[Any]]) -> float:
    """Mean of :func:`average_precision` over the classes that have an image to find.

    Raises:
        DataError: as there, or no class has any.
    """
    return _mean(average_precision(scores, targets))


def score_multilabel(
    scores: NDArray[Any],
    targets: NDArray[np.integer[Any]],
    generator: np.random.Generator,
    resamples: int = 500,
    level: float = 0.95,
) -> MultiLabelScores:
    """Average precisions, and their mean with its bootstrap percentile interval over the images.

    It says how far the number would move with another test set of the same kind, not with another training
    run. A resample without an image of a class is scored on the others. The estimate itself is one of the
    drawn values, so that there is an interval whatever was drawn.

    Args:
        scores: [N, K]; higher means more likely there.
        targets: [N, K]: 1 present, 0 absent, -1 not scored.
        generator: source of the draws.
        resamples: R.
        level: coverage of the interval, between 0 and 1.

    Raises:
        DataError: as :func:`average_precision`, or no class has an image to find.
    """
    if resamples < 1 or not 0 < level < 1:
        raise DataError(f"resamples must be 1 or more and level within (0, 1), not {resamples} and {level}")
    values, given = _check(scores, targets)
    rankings = [_Ranking(values[:, k], given[:, k]) for k in range(values.shape[1])]
    found = np.array([ranking.score() for ranking in rankings])
    mean = _mean(found)
    count, drawn = len(values), []
    rows = max(1, _BLOCK // count)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        picked = generator.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        weights = np.bincount(picked.ravel(), minlength=size * count).reshape(size, count)
        resampled = np.stack([ranking.score_weighted(weights) for ranking in rankings], axis=1)
        known = ~np.isnan(resampled)
        sums = np.where(known, resampled, 0).sum(1)
        drawn.append(sums[known.any(1)] / known.sum(1)[known.any(1)])
    low, high = np.quantile(np.concatenate([*drawn, [mean]]), [(1 - level) / 2, (1 + level) / 2])
    return MultiLabelScores(Interval(mean, float(low), float(high)), found)


class _Ranking:
    """The scored images of one class from the highest score on; resamples need no sort of their own."""

    def __init__(self, scores: Floats, targets: NDArray[np.integer[Any]]) -> None:
        rows = np.flatnonzero(targets >= 0)
        self.order = rows[np.argsort(-scores[rows], kind="stable")]
        ranked = scores[self.order]
        # Where the last image of each distinct score stands.
        self.ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)])
        self.present = targets[self.order] == 1

    def score(self) -> float:
        """Average precision; NaN where there is nothing to find."""
        return float(self._integrate(np.ones((1, len(self.order)), dtype=np.int64))[0])

    def score_weighted(self, weights: NDArray[np.int64]) -> Floats:
        """Average precision [R] where image n counts weights[r, n] times."""
        return self._integrate(weights[:, self.order])

    def _integrate(self, counted: NDArray[np.int64]) -> Floats:
        hits = (counted * self.present).cumsum(1)[:, self.ends]
        seen = counted.cumsum(1)[:, self.ends]
        total = hits.max(1, initial=0)
        gains = np.diff(hits, axis=1, prepend=0)
        found = (gains * hits / np.maximum(seen, 1)).sum(1) / np.maximum(total, 1)
        return np.where(total > 0, found, np.nan)


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    if not len(known):
        raise DataError("no class has an image to find, so there is no average precision; score other images")
    return float(known.mean())


def _check(
    scores: NDArray[Any], targets: NDArray[np.integer[Any]]
) -> tuple[Floats, NDArray[np.integer[Any]]]:
    values, given = np.asarray(scores, dtype=np.float64), np.asarray(targets)
    if values.ndim != 2 or values.shape != given.shape:
        raise DataError(
            f"scores and targets must be [N, K] both, not {list(values.shape)} and {list(given.shape)}"
        )
    if np.isnan(values).any():
        row, column = np.argwhere(np.isnan(values))[0].tolist()
        raise DataError(f"scores must be numbers; that of image {row} and class {column} is NaN")
    if given.size and (given.min() < -1 or given.max() > 1):
        raise DataError(f"targets must be 1, 0 or -1, found {given.min()}..{given.max()}")
    return values, given
