"""Transition matrices, and which image has which kind of noise."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lauter.errors import DataError

CLEAN, CLOSED, OPEN_NOISE = "clean", "closed", "open"
_SUM_TOLERANCE = 1e-6


def transition_matrix(true_labels: ArrayLike, labels: ArrayLike, num_classes: int) -> NDArray[np.float64]:
    r"""Share of each true class that was given each label.

    .. math:: T_{ij} = \#\{n : y_n = i, \tilde y_n = j\} / \#\{n : y_n = i, \tilde y_n \ne -1\}

    Args:
        true_labels: [N] true labels; images of no class (-1) do not count.
        labels: [N] given labels; unlabelled images (-1) do not count.
        num_classes: K.

    Returns:
        [K, K], [true, given]; rows sum to 1. A class without images is taken to keep its label.

    Raises:
        DataError: the lengths differ, or a label is out of its range.
    """
    true = check_labels(true_labels, num_classes, lowest=-1)
    given = check_labels(labels, num_classes, lowest=-1)
    _check_lengths(true, given)
    counted = (true >= 0) & (given >= 0)
    pairs = true[counted] * num_classes + given[counted]
    counts = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.float64)
    absent = np.flatnonzero(counts.sum(axis=1) == 0)
    counts[absent, absent] = 1
    matrix: NDArray[np.float64] = counts / counts.sum(axis=1, keepdims=True)
    return matrix


def check_transition_matrix(matrix: ArrayLike) -> NDArray[np.float64]:
    """Give a transition matrix as float64, or refuse it.

    Args:
        matrix: [K, K], [true, given].

    Returns:
        The matrix.

    Raises:
        DataError: it is not square, an entry is no probability, or a row does not sum to 1.
    """
    checked = np.asarray(matrix, dtype=np.float64)
    if checked.ndim != 2 or checked.shape[0] != checked.shape[1] or checked.shape[0] < 1:
        raise DataError(f"a transition matrix must be square, not of shape {checked.shape}")
    if not np.isfinite(checked).all() or checked.min() < 0 or checked.max() > 1 + _SUM_TOLERANCE:
        raise DataError("a transition matrix holds probabilities in 0..1; this one does not")
    sums = checked.sum(axis=1)
    worst = int(np.argmax(np.abs(sums - 1)))
    if abs(sums[worst] - 1) > _SUM_TOLERANCE:
        raise DataError(
            f"row {worst} of the transition matrix sums to {sums[worst]:g}; rows [true, given] sum to 1"
        )
    return checked


def noise_kinds(true_labels: ArrayLike, labels: ArrayLike) -> NDArray[np.str_]:
    """Tell each image's noise: 'open' where it is of no class, else 'closed' where its label is wrong.

    Args:
        true_labels: [N] true labels, -1 for images of no class.
        labels: [N] given labels.

    Returns:
        [N] of 'clean', 'closed' and 'open'.

    Raises:
        DataError: the lengths differ.
    """
    true, given = np.asarray(true_labels), np.asarray(labels)
    _check_lengths(true, given)
    return np.where(true < 0, OPEN_NOISE, np.where(true == given, CLEAN, CLOSED)).astype(np.str_)


def check_labels(labels: ArrayLike, num_classes: int, *, lowest: int = 0) -> NDArray[np.int64]:
    """Give labels as int64 [N], or refuse them.

    Raises:
        DataError: they are not a row of integers in lowest..K-1.
    """
    checked = np.asarray(labels)
    if checked.ndim != 1 or not (np.issubdtype(checked.dtype, np.integer) or checked.size == 0):
        raise DataError(f"labels must be integers [N], not {checked.dtype} of shape {checked.shape}")
    if checked.size and (checked.min() < lowest or checked.max() >= num_classes):
        raise DataError(
            f"labels must be in {lowest}..{num_classes - 1}, found {checked.min()}..{checked.max()}"
            + ("; unlabelled images cannot be corrupted, leave them out" if checked.min() == -1 else "")
        )
    return checked.astype(np.int64)


def _check_lengths(true: NDArray[np.int64], given: NDArray[np.int64]) -> None:
    if len(true) != len(given):
        raise DataError(f"{len(true)} true labels stand beside {len(given)} given labels; expected as many")
