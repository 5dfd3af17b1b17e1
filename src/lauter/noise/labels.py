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


def _draw_rows(movable: Int64s, rate: float, total: int, rng: np.random.Generator) -> Int64s:
    count = round(rate * total)
    if count > len(movable):
        raise DataError(
            f"a rate of {rate} of {total} labels is {count}, but only {len(movable)} can move; lower it"
        )
    return rng.permutation(movable)[:count]
