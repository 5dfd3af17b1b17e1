"""Nearest neighbours among many images: exactly where that is cheap, in cells where it is not.

Cells are those of k-means on the sphere. The images of a cell look for their neighbours together, in the
cells nearest to theirs, as one matrix product; so a million images of 512 features take minutes on two cores.
In how many cells is not a setting: a sample of the images is searched exactly as well, and the number is the
smallest that finds the wanted share of the sample's true neighbours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from lauter.data.dataset import Int64s
from lauter.errors import ConfigError

Report = Callable[[str, float], None]
"""Called with the name of a part and the share of it that is done, 0..1."""
Float32s = NDArray[np.float32]
EXACT_LIMIT = 30_000
"""Up to so many images all pairs are compared."""

_BLOCK = 16_384  # rows of features looked at together
_QUERIES = 2048  # rows that are searched for together
_SAMPLE = 512  # images that are searched for exactly, to measure what the cells find
_TRAINING_ROWS = 64  # of k-means, for each cell
_ROUNDS = 10  # of k-means
_MOST_CANDIDATES = 2**14  # images that one image is compared with, in about, at most
_LARGEST_CELL = 6  # times the usual size; larger ones are cut, or twins by the thousand would cost all pairs
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The k nearest other images of each of N images, by cosine of centred features.

    Attributes:
        rows: [N, k] which, the nearest first, never the image itself.
        cosines: [N, k] how near.
        recall: share of the true neighbours that are among them, measured on a sample; 1 where all pairs were
            compared.
    """

    rows: NDArray[np.int32]
    cosines: NDArray[np.float16]
    recall: float


def search_neighbours(
    features: NDArray[Any],
    k: int,
    generator: np.random.Generator,
    *,
    recall: float = 0.95,
    report: Report | None = None,
) -> Neighbours:
    """Find the k nearest other images of each image by cosine of centred features.

    Args:
        features: [N, D] float16 or float32, finite; may be mapped from disk, and is read in blocks.
        k: how many; at most N - 1.
        generator: draws the sample and the first cells, where there are cells.
        recall: share of the true neighbours that cells shall find, in (0, 1]. Missed where that would mean to
            compare each image with more than some 16,000 others; what was reached is in the result.
        report: called as the search goes on.

    Returns:
        The neighbours.

    Raises:
        ConfigError: k or recall is out of its range.
    """
    count = len(features)
    if not 1 <= k < count:
        raise ConfigError(f"{count} images have no {k} neighbours each; choose k between 1 and {count - 1}")
    if not 0 < recall <= 1:
        raise ConfigError(f"recall must be in (0, 1], not {recall}; 0.95 is usual")
    say = report or _say_nothing
    mean = average_rows(features)
    found = Neighbours(np.empty((count, k), np.int32), np.empty((count, k), np.float16), 1.0)
    if count <= EXACT_LIMIT:
        vectors = _normalise(features, mean)
        for start in range(0, count, _QUERIES):
            rows = np.arange(start, min(start + _QUERIES, count))
            _fill(found, rows, vectors[rows], vectors, None)
            say("neighbours", (start + len(rows)) / count)
        return found
    cells = _make_cells(features, mean, generator)
    say("neighbours", 0.1)
    sample = np.sort(generator.choice(count, min(_SAMPLE, count), replace=False))
    cells_each, reached = _choose_cells(cells, sample, min(k, 50), recall)
    say("neighbours", 0.15)
    for number in range(cells.count):
        _search_cell(found, cells, number, cells_each)
        say("neighbours", 0.15 + 0.85 * (cells.starts[number + 1] / count))
    return Neighbours(found.rows, found.cosines, reached)


def average_rows(features: NDArray[Any]) -> Float32s:
    """The mean [D] of all rows, read in blocks."""
    total = np.zeros(features.shape[1])
    for start in range(0, len(features), _BLOCK):
        total += np.asarray(features[start : start + _BLOCK]).sum(0, dtype=np.float64)
    return np.asarray(total / len(features), dtype=np.float32)


def _say_nothing(part: str, done: float) -> None:
    """Nobody listens."""


def _normalise(rows: NDArray[Any], mean: Float32s) -> Float32s:
    """Rows as directions from the mean; a row that is the mean has none and stays 0."""
    vectors = np.asarray(rows, dtype=np.float32) - mean
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _TINY)
    return vectors


def _fill(found: Neighbours, own: Int64s, queries: Float32s, vectors: Float32s, names: Int64s | None) -> None:
    """Search for the images ``own`` among vectors, whose images are ``names``, and write what is found."""
    k = found.rows.shape[1]
    cosines, places = faiss.knn(queries, vectors, k + 1, metric=faiss.METRIC_INNER_PRODUCT)
    rows = places if names is None else names[places]
    others = rows != own[:, None]
    others[others.all(1), -1] = False  # a twin took the image's own place: leave out the farthest
    found.rows[own] = rows[others].reshape(len(own), k)
    found.cosines[own] = cosines[others].reshape(len(own), k)


@dataclass(frozen=True, eq=False)
class _Cells:
    """Directions of all images, those of a cell beside each other.

    Attributes:
        vectors: [N, D] directions in the order of cells.
        images: [N] which image each is.
        places: [N] where each image is.
        starts: [C + 1] where each cell begins.
        nearest: [C, C] cells by closeness to each cell, itself first.
    """

    vectors: NDArray[np.float16]
    images: Int64s
    places: Int64s
    starts: Int64s
    nearest: NDArray[np.int32]

    @property
    def count(self) -> int:
        """C, how many cells there are."""
        return len(self.nearest)

    def take(self, cells: NDArray[np.int32]) -> tuple[Float32s, Int64s]:
        """Directions and images of some cells."""
        parts = [slice(self.starts[cell], self.starts[cell + 1]) for cell in cells]
        size = sum(part.stop - part.start for part in parts)
        vectors = np.empty((size, self.vectors.shape[1]), np.float32)
        at = 0
        for part in parts:
            vectors[at : at + part.stop - part.start] = self.vectors[part]
            at += part.stop - part.start
        return vectors, np.concatenate([self.images[part] for part in parts])


def _make_cells(features: NDArray[Any], mean: Float32s, generator: np.random.Generator) -> _Cells:
    count, size = features.shape
    wanted = round(count**0.5)
    rows = np.sort(generator.choice(count, min(count, _TRAINING_ROWS * wanted), replace=False))
    clustering = faiss.Kmeans(
        size,
        wanted,
        niter=_ROUNDS,
        spherical=True,
        seed=int(generator.integers(2**31)),
        min_points_per_centroid=1,
        max_points_per_centroid=_TRAINING_ROWS,
    )
    clustering.train(_normalise(features[rows], mean))
    centroids = np.ascontiguousarray(clustering.centroids)
    cell = np.empty(count, np.int64)
    for start in range(0, count, _BLOCK):
        block = _normalise(features[start : start + _BLOCK], mean)
        cell[start : start + _BLOCK] = (block @ centroids.T).argmax(1)
    cell, owner = _cut_large(cell, wanted)
    images = np.argsort(cell, kind="stable")
    places = np.empty(count, np.int64)
    places[images] = np.arange(count)
    vectors = np.empty((count, size), np.float16)
    for start in range(0, count, _BLOCK):
        vectors[places[start : start + _BLOCK]] = _normalise(features[start : start + _BLOCK], mean)
    closeness = centroids[owner] @ centroids[owner].T
    np.fill_diagonal(closeness, np.inf)
    nearest = np.argsort(-closeness, axis=1, kind="stable").astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=len(owner)))])
    return _Cells(vectors, images, places, starts, nearest)


def _cut_large(cell: Int64s, count: int) -> tuple[Int64s, Int64s]:
    """Cut cells that are far too large; gives the cell of each image and the centroid of each cell."""
    limit = _LARGEST_CELL * -(-len(cell) // count)
    cell, owner = cell.copy(), list(range(count))
    for large in np.flatnonzero(np.bincount(cell, minlength=count) > limit).tolist():
        members = np.flatnonzero(cell == large)
        for start in range(limit, len(members), limit):
            cell[members[start : start + limit]] = len(owner)
            owner.append(large)
    return cell, np.array(owner)


def _choose_cells(cells: _Cells, sample: Int64s, k: int, recall: float) -> tuple[int, float]:
    """In how many cells to search, and the share of the sample's true neighbours that are found there."""
    places = cells.places[sample]
    queries = cells.vectors[places].astype(np.float32)
    best = np.full((len(sample), 0), -np.inf, np.float32)
    where = np.zeros((len(sample), 0), np.int64)
    for start in range(0, len(cells.images), _BLOCK):
        block = cells.vectors[start : start + _BLOCK].astype(np.float32)
        cosines, found = faiss.knn(queries, block, min(k + 1, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        cosines[found + start == places[:, None]] = -np.inf
        best, where = np.hstack([best, cosines]), np.hstack([where, found + start])
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best, where = np.take_along_axis(best, order, 1), np.take_along_axis(where, order, 1)
    cell_of = np.repeat(np.arange(cells.count), np.diff(cells.starts))
    ranks = np.empty_like(cells.nearest)
    np.put_along_axis(ranks, cells.nearest.astype(np.int64), np.arange(cells.count, dtype=np.int32)[None], 1)
    needed = ranks[cell_of[places][:, None], cell_of[where]]
    shares = np.cumsum(np.bincount(needed.ravel(), minlength=cells.count)) / needed.size
    most = max(1, min(cells.count, _MOST_CANDIDATES * cells.count // len(cells.images)))
    chosen = min(int(np.searchsorted(shares, recall)) + 1, most)
    return chosen, float(shares[chosen - 1])


def _search_cell(found: Neighbours, cells: _Cells, number: int, cells_each: int) -> None:
    """Find the neighbours of a cell's images in the cells nearest to it."""
    own = slice(cells.starts[number], cells.starts[number + 1])
    if own.start == own.stop:
        return
    ordered = cells.nearest[number]
    sizes = np.cumsum(np.diff(cells.starts)[ordered])
    enough = int(np.searchsorted(sizes, found.rows.shape[1] + 1)) + 1  # small cells may hold too few
    vectors, images = cells.take(ordered[: max(cells_each, enough)])
    mine = cells.images[own]
    for start in range(0, len(mine), _QUERIES):
        part = slice(start, min(start + _QUERIES, len(mine)))
        _fill(found, mine[part], vectors[part], vectors, images)
