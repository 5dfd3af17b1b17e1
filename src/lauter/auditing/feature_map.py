"""A map of the features in two dimensions: images that look alike to the backbone lie together."""

import numpy as np
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from sklearn.utils.extmath import randomized_svd

from lauter.errors import DataError

Float32s = NDArray[np.float32]

MAX_LANDMARKS = 2000
"""Images that t-SNE places; all others are placed among these."""
NUM_COMPONENTS = 50
NUM_NEIGHBOURS = 5
MIN_FOR_TSNE = 16
CHUNK = 8192


def project_features(features: NDArray[np.floating], generator: np.random.Generator) -> Float32s:
    r"""Place every image on a map.

    Features are brought to unit length and centred; principal components (at most 50) of a sample of at most
    2,000 images, the landmarks, are laid out by t-SNE. Every other image comes to lie among its 5 nearest
    landmarks, at their mean weighted by :math:`1 / d^2`, so that the cost grows with N once. Fewer than 16
    images are laid out by their first two principal components.

    Distances on such a map are meant for looking: what lies together is alike, but neither the size of a
    group nor the gap between two of them means anything.

    Args:
        features: [N, D], finite; may be a memory map, which is read in chunks.
        generator: draws the landmarks and the seed of t-SNE.

    Returns:
        [N, 2] positions around 0, the farthest coordinate at -1 or 1; zeros where all features are equal.

    Raises:
        DataError: the features are not a matrix, or are not finite.

    Source: t-SNE as in scikit-learn (van der Maaten and Hinton, JMLR 2008); landmarks and placing are ours.
    """
    if features.ndim != 2 or not features.shape[1]:
        raise DataError(f"features must be [N, D], not {list(features.shape)}; one row for each image")
    n = len(features)
    is_landmark = np.zeros(n, dtype=bool)
    is_landmark[generator.permutation(n)[:MAX_LANDMARKS]] = True
    landmarks = np.flatnonzero(is_landmark)
    sample = _read_directions(features, landmarks)
    center = sample.mean(axis=0, keepdims=True) if n else sample
    axes, spread = _find_axes(sample - center, generator)
    positions: Float32s = np.zeros((n, 2), dtype=np.float32)
    if not spread:
        _read_rest(features, np.flatnonzero(~is_landmark))
        return positions
    components = (sample - center) @ axes
    positions[landmarks] = _lay_out(components, generator)
    others = np.flatnonzero(~is_landmark)
    for start in range(0, len(others), CHUNK):
        rows = others[start : start + CHUNK]
        placed = (_read_directions(features, rows) - center) @ axes
        positions[rows] = _place_among(placed, components, positions[landmarks])
    positions -= (positions.max(axis=0) + positions.min(axis=0)) / 2
    return np.asarray(positions / max(float(np.abs(positions).max()), 1e-12), dtype=np.float32)


def _read_directions(features: NDArray[np.floating], rows: NDArray[np.int64]) -> Float32s:
    """Rows of the features at unit length, as float32."""
    values = np.asarray(features[rows], dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise DataError(f"features must be finite; those of row {int(rows[bad[0]])} are not")
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(norms, np.float32(1e-12)), dtype=np.float32)


def _read_rest(features: NDArray[np.floating], rows: NDArray[np.int64]) -> None:
    for start in range(0, len(rows), CHUNK):
        _read_directions(features, rows[start : start + CHUNK])


def _find_axes(centred: Float32s, generator: np.random.Generator) -> tuple[Float32s, bool]:
    """Principal axes [D, C] of centred features, and whether they differ at all."""
    if not len(centred) or float(np.abs(centred).max()) < 1e-6:
        return np.zeros((centred.shape[1], 2), dtype=np.float32), False
    count = min(NUM_COMPONENTS, *centred.shape)
    seed = int(generator.integers(2**31))
    _, _, axes = randomized_svd(centred, n_components=count, random_state=seed)
    return np.asarray(axes.T, dtype=np.float32), True


def _lay_out(components: Float32s, generator: np.random.Generator) -> Float32s:
    """[L, C] components of the landmarks to [L, 2] positions."""
    if len(components) < MIN_FOR_TSNE:
        flat = np.zeros((len(components), 2), dtype=np.float32)
        flat[:, : components.shape[1]] = components[:, :2]
        return flat
    start = np.zeros((len(components), 2), dtype=np.float32)
    start[:, : components.shape[1]] = components[:, :2]
    start *= np.float32(1e-4) / max(float(start[:, 0].std()), 1e-12)
    # A trace of noise parts images with equal features, which t-SNE could not.
    start += generator.normal(0, 1e-6, start.shape).astype(np.float32)
    layout = TSNE(
        perplexity=min(30.0, (len(components) - 1) / 4),
        init=start,
        learning_rate="auto",
        max_iter=500,
        random_state=int(generator.integers(2**31)),
    )
    return np.asarray(layout.fit_transform(components), dtype=np.float32)


def _place_among(placed: Float32s, landmarks: Float32s, positions: Float32s) -> Float32s:
    """Positions [n, 2] of images by their nearest landmarks."""
    squares = (landmarks**2).sum(axis=1)[None] - 2 * placed @ landmarks.T
    k = min(NUM_NEIGHBOURS, len(landmarks))
    nearest = np.argpartition(squares, k - 1, axis=1)[:, :k]
    distances = np.take_along_axis(squares, nearest, axis=1) + (placed**2).sum(axis=1, keepdims=True)
    weights = 1 / np.maximum(distances, np.float32(1e-9))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray((positions[nearest] * weights[:, :, None]).sum(axis=1), dtype=np.float32)
