"""Closed noise: labels moved to another of the classes. Rates are shares of all labels, met exactly."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lauter.errors import DataError
from lauter.noise.transition import check_labels, check_transition_matrix

Int64s = NDArray[np.int64]


def flip_symmetric(labels: ArrayLike, rate: float, num_classes: int, rng: np.random.Generator) -> Int64s:
    """Move a share of the labels to any other class, all equally likely; never back to the true class.

    Args:
        labels: [N] true labels in 0..K-1.
        rate: share of all N labels to move; round(rate * N) of them are.
        num_classes: K, 2 or more.
        rng: drawn from.

    Returns:
        [N] given labels.

    Raises:
        DataError: a label or the rate is out of its range.
    """
    true = _check_flip(labels, rate, num_classes)
    rows = _draw_rows(np.arange(len(true)), rate, len(true), rng)
    given = true.copy()
    given[rows] = (true[rows] + rng.integers(1, num_classes, size=len(rows))) % num_classes
    return given


def flip_by_map(
    labels: ArrayLike, rate: float, mapping: Mapping[int, int], num_classes: int, rng: np.random.Generator
) -> Int64s:
    """Move a share of the labels along a map of look-alike classes (asymmetric noise).

    Departure from the usual: the rate is a share of *all* labels, as everywhere here, and not of the mapped
    classes' labels; moving 40% of half of the classes is a rate of 0.2.

    Args:
        labels: [N] true labels in 0..K-1.
        rate: share of all N labels to move; round(rate * N) of them are.
        mapping: true class -> given class; classes that are not in it keep their labels.
        num_classes: K, 2 or more.
        rng: drawn from.

    Returns:
        [N] given labels.

    Raises:
        DataError: a label, a class or the rate is out of range, or the mapped classes have too few images.
    """
    true = _check_flip(labels, rate, num_classes)
    target = np.arange(num_classes)
    for origin, goal in mapping.items():
        if not (0 <= origin < num_classes and 0 <= goal < num_classes):
            raise DataError(
                f"the map moves class {origin} to {goal}; expected classes in 0..{num_classes - 1}"
            )
        target[origin] = goal
    movable = np.flatnonzero(target[true] != true)
    rows = _draw_rows(movable, rate, len(true), rng)
    given = true.copy()
    given[rows] = target[true[rows]]
    return given


def flip_pairs(labels: ArrayLike, rate: float, num_classes: int, rng: np.random.Generator) -> Int64s:
    """Move a share of the labels to the next class, the last to the first (pair flips).

    Args:
        labels: [N] true labels in 0..K-1.
        rate: share of all N labels to move; round(rate * N) of them are.
        num_classes: K, 2 or more.
        rng: drawn from.

    Returns:
        [N] given labels.

    Raises:
        DataError: a label or the rate is out of its range.
    """
    following = {label: (label + 1) % num_classes for label in range(num_classes)}
    return flip_by_map(labels, rate, following, num_classes, rng)


def flip_by_instance(
    labels: ArrayLike, rate: float, probabilities: ArrayLike, rng: np.random.Generator
) -> Int64s:
    r"""Move a share of the labels where a model would err: which images, and to which classes.

    Images are drawn without replacement with weights :math:`w_i = 1 - p_i(y_i)`, the new label of each from
    the model's other classes, :math:`P(\tilde y_i = k) = p_i(k) / w_i`; never back to the true class. (Ours.)
    The draw is a race: the images with the smallest :math:`e_i / w_i` are taken, :math:`e_i` exponential,
    which gives what one weighted draw after the other gives (Efraimidis and Spirakis 2006).

    Args:
        labels: [N] true labels in 0..K-1.
        rate: share of all N labels to move; round(rate * N) of them are.
        probabilities: [N, K], K of 2 or more, none negative; rows are scaled to sum to 1.
        rng: drawn from: first the images, then their labels.

    Returns:
        [N] given labels.

    Raises:
        DataError: a label or the rate is out of its range, the probabilities are no shares or of another
            shape, or too few images could be taken for another class.
    """
    shares = _check_probabilities(probabilities, np.size(labels))
    true = _check_flip(labels, rate, shares.shape[1])
    images = np.arange(len(true))
    right = shares[images, true]
    shares[images, true] = 0
    reach = np.cumsum(shares, axis=1)  # adds in one order on every machine, as a plain sum need not
    wrong = reach[:, -1]
    movable = np.flatnonzero(wrong > 0)
    count = _count_moves(len(movable), rate, len(true))
    with np.errstate(over="ignore"):  # what has next to no chance comes last
        race = rng.standard_exponential(len(movable)) * (1 + right[movable] / wrong[movable])
    rows = np.sort(movable[np.argsort(race, kind="stable")[:count]])
    given = true.copy()
    # The first class that reaches beyond the drawn point has a share of its own, so it is never the true one.
    points = rng.random(count) * wrong[rows]
    given[rows] = (reach[rows] <= points[:, None]).sum(axis=1)
    return given


def flip_by_matrix(labels: ArrayLike, matrix: ArrayLike, rng: np.random.Generator) -> Int64s:
    """Draw every given label from its true class's row of a transition matrix.

    Here the counts are random: the matrix gives probabilities, not shares.

    Args:
        labels: [N] true labels in 0..K-1.
        matrix: [K, K], [true, given], rows sum to 1.
        rng: drawn from.

    Returns:
        [N] given labels.

    Raises:
        DataError: the matrix is not a transition matrix, or a label is out of its range.
    """
    transition = check_transition_matrix(matrix)
    true = check_labels(labels, len(transition))
    given = true.copy()
    for label, row in enumerate(transition):
        rows = np.flatnonzero(true == label)
        given[rows] = rng.choice(len(row), size=len(rows), p=row / row.sum())
    return given


def check_rate(rate: float, name: str) -> None:
    """Refuse a rate that is no share.

    Raises:
        DataError: it is not in 0..1.
    """
    if not 0 <= rate <= 1:
        raise DataError(f"the {name} must be a share in 0..1, not {rate}")


def _check_flip(labels: ArrayLike, rate: float, num_classes: int) -> Int64s:
    check_rate(rate, "noise rate")
    if num_classes < 2:
        raise DataError(f"labels can be flipped among 2 classes or more, not {num_classes}")
    return check_labels(labels, num_classes)


def _check_probabilities(probabilities: ArrayLike, count: int) -> NDArray[np.float64]:
    """Give them as a copy that may be written to, or refuse them."""
    checked = np.array(probabilities, dtype=np.float64)
    if checked.ndim != 2 or len(checked) != count:
        raise DataError(
            f"class probabilities must be [N, K] for {count} labels, not of shape {checked.shape}"
        )
    if not np.isfinite(checked).all() or (checked < 0).any() or (checked.sum(axis=1) <= 0).any():
        raise DataError("class probabilities must be 0 or above, and above 0 for a class of each image")
    return checked


def _draw_rows(movable: Int64s, rate: float, total: int, rng: np.random.Generator) -> Int64s:
    count = _count_moves(len(movable), rate, total)
    return rng.permutation(movable)[:count]


def _count_moves(movable: int, rate: float, total: int) -> int:
    count = round(rate * total)
    if count > movable:
        raise DataError(
            f"a rate of {rate} of {total} labels is {count}, but only {movable} can move; lower it"
        )
    return count
