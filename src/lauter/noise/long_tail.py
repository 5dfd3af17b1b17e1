"""Imbalance: class sizes that fall exponentially from a head class to a tail class."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lauter.errors import DataError
from lauter.noise.transition import check_labels

Int64s = NDArray[np.int64]


def count_long_tail(num_classes: int, ratio: float, head_size: int) -> Int64s:
    r"""Class sizes by rank.

    .. math:: n_r = \mathrm{round}(n_0 \rho^{-r / (K - 1)})

    Args:
        num_classes: K, 2 or more.
        ratio: rho, largest class over smallest, 1 or above.
        head_size: n_0, images of the largest class.

    Returns:
        [K] sizes, descending; halves are rounded up.

    Raises:
        DataError: an argument is out of its range, or the smallest class would be empty.

    Example:
        >>> count_long_tail(3, 100, 500).tolist()
        [500, 50, 5]
    """
    if num_classes < 2 or ratio < 1 or head_size < 1:
        raise DataError(
            f"a long tail needs 2 classes or more, a ratio of at least 1 and a head of at least 1 image; "
            f"got {num_classes} classes, ratio {ratio}, head_size {head_size}"
        )
    sizes = _round(head_size * ratio ** (-np.arange(num_classes) / (num_classes - 1)))
    if head_size < ratio:
        raise DataError(
            f"a head of {head_size} images at ratio {ratio:g} leaves the smallest class empty; "
            "raise head_size"
        )
    return sizes


def long_tail_index(
    labels: ArrayLike,
    ratio: float,
    rng: np.random.Generator,
    head_size: int | None = None,
    *,
    num_classes: int | None = None,
    clip: bool = False,
) -> Int64s:
    """Choose images so that class sizes fall exponentially; which class is the head is drawn.

    Args:
        labels: [N] labels in 0..K-1.
        ratio: largest class over smallest, 1 or above; at 1 all classes get the same size.
        rng: drawn from: first the order of the classes, then the images.
        head_size: images of the largest class; by default as many as the classes allow.
        num_classes: K; by default one more than the largest label.
        clip: where a class has too few images, take all it has; the ratio is then not met.

    Returns:
        Rows to keep, ascending.

    Raises:
        DataError: a class has too few images (names it), or an argument is out of its range.
    """
    known = num_classes if num_classes is not None else int(np.max(labels, initial=-1)) + 1
    true = check_labels(labels, known)
    counts = np.bincount(true, minlength=known)
    order = rng.permutation(known)
    if head_size is None:
        head_size = _largest_head(counts[order], ratio)
    sizes = count_long_tail(known, ratio, head_size)
    kept = []
    for label, size in zip(order.tolist(), sizes.tolist(), strict=True):
        if counts[label] < size and not clip:
            raise DataError(
                f"class {label} has {counts[label]} images, but its place in the long tail (ratio {ratio:g}, "
                f"head {head_size}) needs {size}; lower head_size, or pass clip=True to take what is there"
            )
        kept.append(rng.permutation(np.flatnonzero(true == label))[:size])
    return np.sort(np.concatenate(kept)).astype(np.int64)


def _largest_head(counts: Int64s, ratio: float) -> int:
    """The largest head for which every class, in order of rank, has enough images."""
    shares = max(1.0, ratio) ** (-np.arange(len(counts)) / max(1, len(counts) - 1))
    head = int(np.min((counts + 1) / shares, initial=np.inf)) if len(counts) else 0
    while head > 1 and bool((_round(head * shares) > counts).any()):
        head -= 1
    return head


def _round(values: NDArray[np.float64]) -> Int64s:
    return np.floor(values + 0.5).astype(np.int64)
