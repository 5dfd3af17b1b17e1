"""Metrics as plain functions: closed set, open set, label-error detection, calibration.

Truth -1 is an image of no class: left out of the closed metrics, used in the open ones. A prediction of -1
is a model that gives no class: never a hit.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from lauter.errors import DataError
from lauter.evaluation.counts import NONE, Floats, Int64s, count_classes

Labels = NDArray[np.integer[Any]]
Bools = NDArray[np.bool_]


def per_class_recall(predictions: Labels, true_labels: Labels, num_classes: int) -> Floats:
    """Share of each class's images that were recognised.

    Args:
        predictions: [N] predicted class, or -1.
        true_labels: [N] true class, or -1 for images of no class (left out).
        num_classes: K.

    Returns:
        [K] in 0..1; NaN for a class without images.

    Raises:
        DataError: shapes or ranges do not fit, or no image has a class.
    """
    return count_classes(predictions, true_labels, num_classes).per_class_recall()


def balanced_accuracy(predictions: Labels, true_labels: Labels, num_classes: int) -> float:
    """Mean of the per-class recalls over the classes present in the truth.

    Arguments and errors are those of :func:`per_class_recall`.

    >>> balanced_accuracy(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1]), num_classes=2)
    0.5
    """
    return float(count_classes(predictions, true_labels, num_classes).balanced_accuracy())


def balanced_agreement(predictions: Labels, given_labels: Labels, num_classes: int) -> float:
    """Mean over classes of how often the prediction agrees with a *given* label.

    The same arithmetic as :func:`balanced_accuracy` under another name, because doubtful labels are no truth:
    a perfect model's agreement is about one minus the noise rate.
    """
    return float(count_classes(predictions, given_labels, num_classes).balanced_accuracy())


def worst_class_recall(predictions: Labels, true_labels: Labels, num_classes: int) -> float:
    """Smallest per-class recall over the classes present in the truth."""
    return float(count_classes(predictions, true_labels, num_classes).worst_class_recall())


def accuracy(predictions: Labels, true_labels: Labels, num_classes: int) -> float:
    """Share of images with a class that were recognised; large classes dominate it."""
    return float(count_classes(predictions, true_labels, num_classes).accuracy())


def macro_f1(predictions: Labels, true_labels: Labels, num_classes: int) -> float:
    """Mean F1 over the classes present in the truth, on images that have a class."""
    return float(count_classes(predictions, true_labels, num_classes).macro_f1())


def open_macro_f1(predictions: Labels, true_labels: Labels, num_classes: int) -> float:
    """Mean F1 over the classes, where an image of no class that was given one counts as a false positive.

    Equals :func:`macro_f1` where no open image is given a class.
    """
    return float(count_classes(predictions, true_labels, num_classes).open_macro_f1())


def open_auroc(known_scores: NDArray[Any], true_labels: Labels) -> float:
    """Probability that an image of a known class scores above an image of none (ties count half).

    Args:
        known_scores: [N] higher means more likely of a known class (the largest probability, say).
        true_labels: [N] true class, or -1 for images of no class.

    Raises:
        DataError: a score is not finite, lengths differ, or one of the two kinds is missing.
    """
    scores, known = _check_scores(known_scores, np.asarray(true_labels) != NONE, "true_labels")
    if known.all() or not known.any():
        kind = "open images (true label -1)" if known.all() else "images of a known class"
        raise DataError(f"open_auroc compares known with open images, and there are no {kind}")
    return float(roc_auc_score(known, scores))


def score_label_errors(wrong: Bools, score: NDArray[Any], flagged: Bools) -> dict[str, float]:
    """How well a score, and an automatic threshold on it, finds the wrong labels.

    A measure that these data do not define is left out, rather than set to a number by convention: ``auroc``
    and ``average_precision`` need wrong and right labels, ``precision`` something flagged, ``recall`` and
    ``best_f1`` something wrong, ``f1`` either of the two.

    Args:
        wrong: [N] whether the given label is truly wrong.
        score: [N] higher means more likely wrong.
        flagged: [N] whether the automatic threshold calls it wrong.

    Returns:
        auroc, average_precision, precision, recall, f1 (of ``flagged``), best_f1 (over all thresholds).

    Raises:
        DataError: lengths differ, there are no images, or a score is not finite.
    """
    scores, truth = _check_scores(score, wrong, "wrong")
    flags = np.asarray(flagged, dtype=bool)
    if flags.shape != truth.shape:
        raise DataError(
            f"flagged is {list(flags.shape)} and wrong {list(truth.shape)}; both are by image, [N]"
        )
    result: dict[str, float] = {}
    if truth.any() and not truth.all():
        result["auroc"] = float(roc_auc_score(truth, scores))
        result["average_precision"] = float(average_precision_score(truth, scores))
    found, flags_count, wrong_count = int((truth & flags).sum()), int(flags.sum()), int(truth.sum())
    if flags_count:
        result["precision"] = found / flags_count
    if wrong_count:
        result["recall"] = found / wrong_count
    if flags_count or wrong_count:
        result["f1"] = 2 * found / (flags_count + wrong_count)
    if wrong_count:
        result["best_f1"] = _find_best_f1(truth, scores)
    return result


def _find_best_f1(wrong: Bools, scores: Floats) -> float:
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(wrong[order])
    # A threshold cannot part equal scores: only the last of each run of equals is a place to cut.
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    return float(np.max(2 * found[ends] / (ends + 1 + found[-1])))


def label_errors_by_class(
    wrong: Bools, flagged: Bools, given_labels: Labels, num_classes: int
) -> dict[str, Floats]:
    """Precision, recall and F1 of the flagged labels, for each given class.

    Args:
        wrong: [N] whether the given label is truly wrong.
        flagged: [N] whether it was called wrong.
        given_labels: [N] given class; -1 (unlabelled) is left out.
        num_classes: K.

    Returns:
        ``precision``, ``recall`` and ``f1``, each [K]; NaN where a class does not define it.
    """
    labels = np.asarray(given_labels, dtype=np.int64)
    truth, flags = np.asarray(wrong, dtype=bool), np.asarray(flagged, dtype=bool)
    if not labels.shape == truth.shape == flags.shape:
        raise DataError(
            f"wrong {list(truth.shape)}, flagged {list(flags.shape)} and given_labels {list(labels.shape)} "
            "must have one entry by image"
        )
    found, flagged_count, wrong_count = (
        _count_in_class(labels, chosen, num_classes) for chosen in (truth & flags, flags, truth)
    )
    with np.errstate(invalid="ignore"):
        return {
            "precision": found / flagged_count,
            "recall": found / wrong_count,
            "f1": 2 * found / (flagged_count + wrong_count),
        }


def _count_in_class(labels: Int64s, chosen: Bools, num_classes: int) -> Int64s:
    return np.bincount(labels[chosen & (labels != NONE)], minlength=num_classes).astype(np.int64)


def expected_calibration_error(probs: NDArray[Any], outcomes: Bools, num_bins: int = 15) -> float:
    r"""Mean distance between what is promised and what happens, over bins of equal width.

    .. math:: \sum_m \frac{|B_m|}{N} \left| \overline{p}_m - \overline{o}_m \right|

    Args:
        probs: [N] promised probabilities, in 0..1: of the given label being right, or of the top class.
        outcomes: [N] whether it was so.
        num_bins: bins over 0..1; a probability on an edge falls into the bin below it.

    Returns:
        0 (calibrated) to 1.

    Raises:
        DataError: a probability is outside 0..1, lengths differ, or there are none.

    Source: Naeini, Cooper and Hauskrecht (2015); Guo et al. (2017), arXiv 1706.04599, for 15 bins.
    """
    promised, happened = check_probs(probs, outcomes)
    if num_bins < 1:
        raise DataError(f"num_bins must be 1 or more, not {num_bins}")
    bins = np.clip(np.ceil(promised * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    gap = np.bincount(bins, weights=promised - happened, minlength=num_bins)
    return float(np.abs(gap).sum() / len(promised))


def brier(probs: NDArray[Any], outcomes: Bools) -> float:
    """Mean squared distance between a promised probability [N] and what happened [N] (0 or 1).

    Raises:
        DataError: a probability is outside 0..1, lengths differ, or there are none.

    Source: Brier (1950), in its two-outcome form.
    """
    promised, happened = check_probs(probs, outcomes)
    return float(np.mean((promised - happened) ** 2))


def _check_scores(scores: NDArray[Any], flags: Bools, name: str) -> tuple[Floats, Bools]:
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(flags, dtype=bool)
    if values.ndim != 1 or values.shape != truth.shape:
        raise DataError(
            f"scores are {list(values.shape)} and {name} {list(truth.shape)}; both are by image, [N]"
        )
    if not values.size:
        raise DataError("there are no images to score")
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise DataError(f"scores must be finite; the score of row {row} is {values[row]}")
    return values, truth


def check_probs(probs: NDArray[Any], outcomes: Bools) -> tuple[Floats, Floats]:
    """Promised probabilities [N] and what happened [N], checked, as float64.

    Raises:
        DataError: a probability is outside 0..1, lengths differ, or there are none.
    """
    values, truth = _check_scores(probs, outcomes, "outcomes")
    if values.min() < 0 or values.max() > 1:
        raise DataError(f"probabilities must be in 0..1, found {values.min():g}..{values.max():g}")
    return values, truth.astype(np.float64)
