"""Whether two images agree in features that lie on disk or in half precision: no copy of them is made."""

import numpy as np
from numpy.typing import NDArray

from lauter.data.dataset import Int64s

_PART = 16_384
"""Rows, or pairs of rows, that are read at once."""


class CentredFeatures:
    """Cosines of pairs of images, the mean of all taken out first.

    Args:
        features: [n, D] floating-point, of the first n of the images that are compared; rows that are not
            finite are not known.

    Attributes:
        known: [n] whether an image has finite features.
    """

    def __init__(self, features: NDArray[np.floating]) -> None:
        self.known = np.zeros(len(features), dtype=bool)
        self._features = features
        total = np.zeros(features.shape[1])
        for start in range(0, len(features), _PART):
            part = np.asarray(features[start : start + _PART], dtype=np.float32)
            finite = np.isfinite(part).all(1)
            self.known[start : start + _PART] = finite
            total += part[finite].sum(0, dtype=np.float64)
        self._mean = (total / max(1, int(self.known.sum()))).astype(np.float32)

    def compare(self, first: Int64s, second: Int64s) -> NDArray[np.float32]:
        """Cosine [P] of pairs of rows; NaN where one of the two is not known, or beyond the features."""
        found = np.full(len(first), np.nan, dtype=np.float32)
        count = len(self.known)
        inside = np.flatnonzero((first < count) & (second < count))
        pairs = inside[self.known[first[inside]] & self.known[second[inside]]]
        for start in range(0, len(pairs), _PART):
            part = pairs[start : start + _PART]
            found[part] = np.einsum("pd,pd->p", self._take(first[part]), self._take(second[part]))
        return found

    def _take(self, rows: Int64s) -> NDArray[np.float32]:
        centred = self._features[rows].astype(np.float32) - self._mean
        units: NDArray[np.float32] = centred / np.maximum(
            np.linalg.norm(centred, axis=1, keepdims=True), 1e-12
        )
        return units
