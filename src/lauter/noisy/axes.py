"""Principal axes of features: what linear heads are fitted on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lauter.data.dataset import Int64s
from lauter.errors import DataError
from lauter.noisy.neighbours import Report, average_rows

_BLOCK = 16_384  # rows of features looked at together
_FLOAT32_ENTRIES = 2**28  # features beyond so many numbers are held as float16
_FEWEST_SPREAD = 0.1  # of the usual standard deviation: features that hardly vary are not blown up
_LEAST_VARIANCE = 1e-6  # of the largest: axes below are left out


@dataclass(frozen=True, eq=False)
class Axes:
    """Standardised features on their principal axes, with a constant as the last one.

    Attributes:
        mean: [D] of the features.
        turn: [D, d] from centred features to axes, the scaling included.
        values: [N, d + 1] float16 or float32, the images in the order of folds.
        variances: [d + 1] of the axes.
        folds: [N] fold of each image.
        places: [N] where in ``values`` each image is.
        starts: [F + 1] where each fold begins.
    """

    mean: NDArray[np.float32]
    turn: Tensor
    values: Tensor
    variances: Tensor
    folds: Int64s
    places: Int64s
    starts: Int64s

    @property
    def num_folds(self) -> int:
        """F."""
        return len(self.starts) - 1


def find_axes(features: NDArray[Any], folds: Int64s, report: Report | None = None) -> Axes:
    """Standardise features and turn them to their principal axes.

    A feature is divided by its standard deviation, but by no less than a tenth of the usual one: pixels at
    the rim of a picture, which are hardly ever anything but black, would else be as large as all others.

    Args:
        features: [N, D] float16 or float32, finite; may be mapped from disk, and is read in blocks.
        folds: [N] fold of each image.
        report: called as it goes on.

    Raises:
        DataError: there is not one fold for each image.
    """
    count, size = features.shape
    if folds.shape != (count,):
        raise DataError(f"features of {count} images need folds [{count}], not {list(folds.shape)}")
    mean = average_rows(features)
    products = np.zeros((size, size))
    for start in range(0, count, _BLOCK):
        centred = np.asarray(features[start : start + _BLOCK], dtype=np.float32) - mean
        products += centred.T @ centred
        _tell(report, "axes", 0.5 * start / count)
    variance = products.diagonal() / count
    spread = np.sqrt(np.maximum(variance, _FEWEST_SPREAD**2 * variance.mean()))
    spread[spread == 0] = 1.0  # constant features are 0 when they are centred, and stay so
    variances, vectors = np.linalg.eigh(products / count / np.outer(spread, spread))
    kept = variances > _LEAST_VARIANCE * max(variances[-1], 1e-12)
    turn = torch.from_numpy((vectors[:, kept] / spread[:, None]).astype(np.float32))
    order = np.argsort(folds, kind="stable")
    places = np.empty(count, np.int64)
    places[order] = np.arange(count)
    width = turn.shape[1] + 1
    held = torch.float32 if count * width <= _FLOAT32_ENTRIES else torch.float16
    values = torch.ones(count, width, dtype=held)
    for start in range(0, count, _BLOCK):
        block = torch.from_numpy(np.asarray(features[start : start + _BLOCK], dtype=np.float32) - mean)
        values[torch.from_numpy(places[start : start + _BLOCK]), :-1] = (block @ turn).to(held)
        _tell(report, "axes", 0.5 + 0.5 * start / count)
    starts = np.concatenate([[0], np.cumsum(np.bincount(folds))])
    spreads = torch.from_numpy(np.append(variances[kept], 1.0).astype(np.float32))
    return Axes(mean, turn, values, spreads, folds, places, starts)


def _tell(report: Report | None, part: str, done: float) -> None:
    if report is not None:
        report(part, done)
