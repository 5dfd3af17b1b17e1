"""The few numbers per class that every closed-set and open-set metric here is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lauter.errors import DataError

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

NONE = -1
"""The label of an image of no class (or with no label), and the prediction of a model that gives no class."""


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """Sufficient statistics per class; leading dimensions are free, so resamples go through the same code.

    The methods reduce the class dimension and keep the leading ones. A class counts only when at least one
    image truly belongs to it, so a test set without some class is scored on the classes it has.

    Attributes:
        hits: [..., K] images of class k predicted as k.
        support: [..., K] images of class k.
        predicted: [..., K] images of any class predicted as k.
        strays: [..., K] images of no class predicted as k.
    """

    hits: Int64s
    support: Int64s
    predicted: Int64s
    strays: Int64s

    def __post_init__(self) -> None:
        if not np.all(self.support.sum(-1) > 0):
            raise DataError(
                "nothing to score: no image has a true class (all labels are -1); "
                "give labels in 0..K-1 for at least one image"
            )

    def per_class_recall(self) -> Floats:
        """[..., K] share of each class's images that were recognised; NaN for a class without images."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.hits / self.support, dtype=np.float64)

    def balanced_accuracy(self) -> Floats:
        """[...] mean of the per-class recalls."""
        return np.asarray(np.nanmean(self.per_class_recall(), axis=-1))

    def worst_class_recall(self) -> Floats:
        """[...] smallest of the per-class recalls."""
        return np.asarray(np.nanmin(self.per_class_recall(), axis=-1))

    def accuracy(self) -> Floats:
        """[...] share of all images with a class that were recognised."""
        return np.asarray(self.hits.sum(-1) / self.support.sum(-1), dtype=np.float64)

    def macro_f1(self) -> Floats:
        """[...] mean F1 of the classes, on the images that have a class."""
        return self._mean_f1(self.predicted)

    def open_macro_f1(self) -> Floats:
        """[...] mean F1 of the classes where an image of no class that was given one is a false positive."""
        return self._mean_f1(self.predicted + self.strays)

    def _mean_f1(self, predicted: Int64s) -> Floats:
        with np.errstate(invalid="ignore"):
            f1 = np.where(self.support > 0, 2 * self.hits / (self.support + predicted), np.nan)
        return np.asarray(np.nanmean(f1, axis=-1))


CLOSED_METRICS: dict[str, Callable[[ClassCounts], Floats]] = {
    "balanced_accuracy": ClassCounts.balanced_accuracy,
    "macro_f1": ClassCounts.macro_f1,
    "worst_class_recall": ClassCounts.worst_class_recall,
    "accuracy": ClassCounts.accuracy,
}
OPEN_METRICS: dict[str, Callable[[ClassCounts], Floats]] = {"open_macro_f1": ClassCounts.open_macro_f1}


def pair_labels(
    predictions: NDArray[np.integer[Any]], true_labels: NDArray[np.integer[Any]], num_classes: int
) -> tuple[Int64s, Int64s]:
    """Check predictions and labels [N] against each other and return both as int64."""
    pair = []
    for name, values in (("predictions", predictions), ("labels", true_labels)):
        array = np.asarray(values)
        if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
            raise DataError(f"{name} must be integers [N], not {array.dtype} {list(array.shape)}")
        # uint16 predictions would wrap below when codes are formed.
        array = array.astype(np.int64)
        if array.size and (array.min() < NONE or array.max() >= num_classes):
            raise DataError(
                f"{name} must be in -1..{num_classes - 1} for {num_classes} classes, "
                f"found {array.min()}..{array.max()}"
            )
        pair.append(array)
    if len(pair[0]) != len(pair[1]):
        raise DataError(f"{len(pair[0])} predictions for {len(pair[1])} labels; both are by image, [N]")
    return pair[0], pair[1]


def count_classes(
    predictions: NDArray[np.integer[Any]], true_labels: NDArray[np.integer[Any]], num_classes: int
) -> ClassCounts:
    """Count hits, support, predictions and strays of each class.

    Args:
        predictions: [N] predicted class, or -1 where the model gives none.
        true_labels: [N] true class, or -1 for an image of no class.
        num_classes: K.

    Returns:
        Counts with arrays [K].

    Raises:
        DataError: shapes, types or ranges do not fit, or no image has a class.
    """
    predicted, truth = pair_labels(predictions, true_labels, num_classes)
    known = truth != NONE
    return ClassCounts(
        hits=_count(truth[known & (predicted == truth)], num_classes),
        support=_count(truth, num_classes),
        predicted=_count(predicted[known], num_classes),
        strays=_count(predicted[~known], num_classes),
    )


def _count(labels: Int64s, num_classes: int) -> Int64s:
    # Shifted by one, so that -1 falls into a bin of its own that is then cut off.
    return np.bincount(labels + 1, minlength=num_classes + 1)[1:].astype(np.int64)
