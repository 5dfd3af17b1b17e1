r"""Confident learning: wrong labels, counted and found by predictions of networks that never learnt them.

What the images that carry a label get for it on average is what it takes to be counted as of that class:

.. math:: t_k = \frac{1}{|X_k|} \sum_{i \in X_k} p_{ik}, \qquad X_k = \{i : \tilde y_i = k\}

.. math:: C_{gk} = \left|\{i \in X_g : k = \arg\max_{l : p_{il} \ge t_l} p_{il}\}\right|, \qquad
          Q_{gk} \propto \frac{C_{gk}}{\sum_l C_{gl}} |X_g|

C is the confident joint of given and true classes; Q, its calibrated form, says how many labels of each class
are wrong, and the images that look most like it are then called so.

Source: Northcutt, Jiang and Chuang (2021), arXiv 1911.00068. Departures: where the paper leaves a choice, or
its authors' library ``cleanlab`` does otherwise, this is as that library does: an image that reaches several
thresholds counts for its most probable class, even where that class's own is not reached; every class keeps a
right label; counts are whole and keep the sums of their rows; and what is predicted as given is never called
wrong. Ties, which the library leaves to its sorting, are settled: of equal images the first goes first, of
equal remainders the last class's is rounded up.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lauter.data.dataset import UNLABELLED, Int64s
from lauter.errors import ConfigError, DataError
from lauter.noisy.beliefs import Floats

Bools = NDArray[np.bool_]
PruneBy = Literal["both", "class", "noise_rate"]
Score = Literal["margin", "self_confidence"]

_TOLERANCE = 1e-6  # equal probabilities must reach their own mean, however it was rounded
_LOWEST = 2 * _TOLERANCE  # and no threshold may be reached with nothing


def find_thresholds(probabilities: Floats, labels: Int64s) -> Floats:
    """What it takes to be counted as of a class: the mean probability of a label over those that carry it.

    Args:
        probabilities: [N, K] out-of-sample predictions.
        labels: [N] given labels, -1 where there is none.

    Returns:
        [K]; infinite for classes that no image carries.

    Raises:
        DataError: shapes or ranges do not fit.

    Example:
        >>> find_thresholds(np.array([[0.9, 0.1], [0.5, 0.5], [0.4, 0.6]]), np.array([0, 0, 1]))
        array([0.7, 0.6])
    """
    probs, given, _ = _take_labelled(probabilities, labels)
    classes = probs.shape[1]
    counts = np.bincount(given, minlength=classes)
    sums = np.bincount(given, probs[np.arange(len(given)), given], minlength=classes)
    means = np.maximum(sums / np.maximum(counts, 1), _LOWEST)
    return np.where(counts > 0, means, np.inf)


def count_confident_joint(probabilities: Floats, labels: Int64s) -> Int64s:
    """Count the images that surely look like a class, by given label: C of the module's formula.

    Arguments and errors are those of :func:`find_thresholds`.

    Returns:
        [K, K], given class by the class that an image looks like; at least 1 on the diagonal.
    """
    probs, given, _ = _take_labelled(probabilities, labels)
    classes = probs.shape[1]
    reached = probs >= find_thresholds(probs, given) - _TOLERANCE
    looks = np.where(reached.sum(1) > 1, probs.argmax(1), reached.argmax(1))
    sure = reached.any(1)
    cells = np.bincount(given[sure] * classes + looks[sure], minlength=classes**2)
    joint = cells.reshape(classes, classes).astype(np.int64)
    np.fill_diagonal(joint, np.maximum(joint.diagonal(), 1))
    return joint


def calibrate_joint(joint: Int64s, class_counts: Int64s) -> Floats:
    """Scale a confident joint to the counts of all images, the unsure ones too: Q of the module's formula.

    Args:
        joint: [K, K] of :func:`count_confident_joint`.
        class_counts: [K] images by given label, not all 0.

    Returns:
        [K, K] shares of all images, sum 1; the sum of a row is the share of its given label.
    """
    counts = joint / np.maximum(joint.sum(1, keepdims=True), 1) * class_counts[:, None]
    return np.asarray(counts / counts.sum())


def find_confident_errors(
    probabilities: Floats, labels: Int64s, *, prune_by: PruneBy = "noise_rate"
) -> Bools:
    """Which given labels are wrong, by confident learning.

    Args:
        probabilities: [N, K] predictions of networks that did not train on the image they judge.
        labels: [N] given labels, -1 where there is none.
        prune_by: class: of each class, those with the lowest probability of their own label, as many as Q
            has off its diagonal; noise_rate: for each pair of classes, those with the largest margin
            p[other] - p[given], as many as Q has there; both: what the two agree on.

    Returns:
        [N] mask; never an unlabelled image.

    Raises:
        DataError: shapes or ranges do not fit.
        ConfigError: ``prune_by`` is none of the three.

    Example:
        >>> probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.1, 0.9]])
        >>> find_confident_errors(probs, np.array([0, 0, 0, 1, 1]))
        array([False, False,  True, False, False])
    """
    if prune_by not in get_args(PruneBy):
        raise ConfigError(f"prune_by must be {', '.join(get_args(PruneBy))}, not {prune_by!r}")
    probs, given, known = _take_labelled(probabilities, labels)
    flagged = np.zeros(len(labels), dtype=bool)
    if not len(given):
        return flagged
    class_counts = np.bincount(given, minlength=probs.shape[1])
    counts = _count_whole(count_confident_joint(probs, given), class_counts)
    wrong = np.zeros(len(given), dtype=bool)
    for label in np.flatnonzero(class_counts).tolist():
        rows = np.flatnonzero(given == label)
        parts = []
        if prune_by != "noise_rate":
            parts.append(_least_like_own(probs[rows], label, len(rows) - int(counts[label, label])))
        if prune_by != "class":
            parts.append(_most_like_others(probs[rows], label, counts[label]))
        wrong[rows] = np.logical_and.reduce(parts)
    own = probs[np.arange(len(given)), given]
    flagged[known] = wrong & (probs.max(1) > own + _TOLERANCE)
    return flagged


def score_confidence(probabilities: Floats, labels: Int64s, score: Score = "margin") -> Floats:
    r"""How well an image looks like its given label.

    .. math:: \text{margin: } \frac{1}{2}\left(1 + p_{i \tilde y_i} - \max_{k \ne \tilde y_i} p_{ik}\right),
              \qquad \text{self-confidence: } p_{i \tilde y_i}

    A margin below one half is a prediction of another class than the given one.

    Args:
        probabilities: [N, K].
        labels: [N] given labels, -1 where there is none.
        score: margin or self_confidence.

    Returns:
        [N] in 0..1, low where the label is doubtful; NaN where there is none.

    Raises:
        DataError: shapes or ranges do not fit.
        ConfigError: ``score`` is neither of the two.

    Example:
        >>> score_confidence(np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]]), np.array([0, 1]))
        array([0.75, 0.25])
    """
    if score not in get_args(Score):
        raise ConfigError(f"score must be {' or '.join(get_args(Score))}, not {score!r}")
    probs, given, known = _take_labelled(probabilities, labels)
    places = np.arange(len(given))
    own = probs[places, given]
    scores = np.full(len(labels), np.nan)
    if score == "self_confidence":
        scores[known] = own
        return scores
    others = probs.copy()
    others[places, given] = -np.inf
    scores[known] = (1 + own - others.max(1)) / 2
    return scores


def _take_labelled(probabilities: Floats, labels: Int64s) -> tuple[Floats, Int64s, Int64s]:
    """Probabilities, labels and rows of the images that have a label, checked."""
    probs = np.asarray(probabilities, dtype=np.float64)
    given = np.asarray(labels)
    if probs.ndim != 2 or given.shape != probs.shape[:1] or probs.shape[1] < 2:
        raise DataError(
            f"confident learning needs probabilities [N, K] with K of 2 or more and labels [N], "
            f"not {list(probs.shape)} and {list(given.shape)}"
        )
    if not np.issubdtype(given.dtype, np.integer):
        raise DataError(f"labels must be integers, not {given.dtype}")
    given = given.astype(np.int64)
    classes = probs.shape[1]
    if len(given) and (given.min() < UNLABELLED or given.max() >= classes):
        raise DataError(
            f"labels must be in -1..{classes - 1} for {classes} classes, found {given.min()}..{given.max()}"
        )
    rows = np.flatnonzero(given != UNLABELLED)
    taken = probs[rows]
    if not np.isfinite(taken).all() or (taken.size and (taken.min() < 0 or taken.max() > 1 + _TOLERANCE)):
        raise DataError(
            f"probabilities must be finite and in 0..1, found {taken.min():g}..{taken.max():g}; "
            "hand over softmax outputs, not logits"
        )
    return taken, given[rows], rows


def _count_whole(joint: Int64s, class_counts: Int64s) -> Int64s:
    """Images [K, K] of each given class that are of each class: whole numbers, a right one in each row."""
    counts = _round_rows(calibrate_joint(joint, class_counts) * class_counts.sum())
    bare = np.flatnonzero(counts.diagonal() == 0)
    counts[bare] = np.maximum(counts[bare] - 1, 0)
    counts[bare, bare] = 1
    return counts


def _round_rows(counts: Floats) -> Int64s:
    """Round to whole numbers that keep each row's sum; the largest remainders give way."""
    rounded = np.round(counts).astype(np.int64)
    missing = np.round(counts.sum(1)).astype(np.int64) - rounded.sum(1)
    for row in np.flatnonzero(missing):
        order = np.argsort(counts[row] - rounded[row], kind="stable")
        short = int(missing[row])
        rounded[row, order[::-1][:short] if short > 0 else order[:-short]] += np.sign(short)
    return rounded


def _least_like_own(probs: Floats, label: int, count: int) -> Bools:
    """Of the images [n, K] of one label, the ``count`` with the lowest probability of it."""
    chosen = np.zeros(len(probs), dtype=bool)
    chosen[np.argsort(probs[:, label], kind="stable")[:count]] = True
    return chosen


def _most_like_others(probs: Floats, label: int, counts: Int64s) -> Bools:
    """Of the images [n, K] of one label, those with the largest margins for each other class k, counts[k]."""
    chosen = np.zeros(len(probs), dtype=bool)
    for other in np.flatnonzero(counts).tolist():
        if other != label:
            lead = probs[:, label] - probs[:, other]
            chosen[np.argsort(lead, kind="stable")[: counts[other]]] = True
    return chosen
