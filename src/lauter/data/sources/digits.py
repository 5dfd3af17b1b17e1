"""The embedded data set: scikit-learn's 1,797 handwritten digits, for trials without any download."""

import numpy as np
from sklearn.datasets import load_digits

from lauter.data.dataset import Dataset, Int64s, Pixels, ResidentImages
from lauter.errors import DataError

SPLITS = ("train", "test")
DEFAULT_SIZE = 16
_STORED_SIZE = 8
_SPLIT_SEED = 1797


def open_digits(split: str | None = None, image_size: int | None = None) -> Dataset:
    """Open the embedded digits.

    The stored 8 x 8 grey images on 0..16 are scaled to 0..255, repeated into three channels and enlarged by
    repeating pixels. The test split is a third of each class, always the same.

    Args:
        split: 'train' (the default) or 'test'.
        image_size: side in pixels, a multiple of 8; 16 by default.

    Returns:
        The data set, with classes '0' to '9'.

    Raises:
        DataError: another split, or a size that is no multiple of 8.
    """
    split = split or SPLITS[0]
    size = image_size or DEFAULT_SIZE
    if split not in SPLITS:
        raise DataError(f"digits: no split {split!r}; expected 'train' or 'test'")
    if size % _STORED_SIZE:
        raise DataError(
            f"digits: image_size must be a multiple of {_STORED_SIZE}, not {size}; try {DEFAULT_SIZE}"
        )
    stored, targets = load_digits(return_X_y=True)
    labels: Int64s = targets.astype(np.int64)
    rows = _split_rows(labels)[SPLITS.index(split)]
    grey: Pixels = ((stored.astype(np.int64) * 255 + 8) // 16).astype(np.uint8)
    grey = grey.reshape(-1, 1, _STORED_SIZE, _STORED_SIZE)[rows]
    factor = size // _STORED_SIZE
    pixels = np.ascontiguousarray(grey.repeat(3, axis=1).repeat(factor, axis=2).repeat(factor, axis=3))
    return Dataset(
        name="digits",
        images=ResidentImages(pixels),
        labels=labels[rows],
        class_names=tuple(str(digit) for digit in range(10)),
        ids=np.array([f"digits/{row:04d}" for row in rows], dtype=np.str_),
    )


def _split_rows(labels: Int64s) -> tuple[Int64s, Int64s]:
    """Rows of the training and the test split, sorted; a third of each class is for testing."""
    rng = np.random.default_rng(_SPLIT_SEED)
    in_test = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        rows = rng.permutation(np.flatnonzero(labels == digit))
        in_test[rows[: len(rows) // 3]] = True
    return np.flatnonzero(~in_test), np.flatnonzero(in_test)
