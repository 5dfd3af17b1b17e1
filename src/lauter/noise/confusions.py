"""Confusions of a small model: for each image, the classes that it could be taken for.

Instance-dependent noise needs probabilities for every image, and a recipe is worth its name only if it gives
the same labels everywhere. So the model is one whose result is the same on every machine, bit for bit:

- what is summed or multiplied as matrices are whole numbers, small enough for any order of summation (any
  BLAS, any number of threads, fused or not) to be exact;
- all else is arithmetic element by element, which IEEE 754 fixes; linear systems are solved in such steps;
- exp and log alone are left to the machine, whose last digit vanishes when probabilities are rounded to 1e-4.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lauter.errors import DataError
from lauter.noise.seeding import step_generator
from lauter.noise.transition import check_labels

Int64s = NDArray[np.int64]
Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
Pixels = NDArray[np.uint8]

SIDES = range(8, 33)
"""Sides in pixels of images that the model takes; the largest keeps every pooled sum below 2^24."""
MOST_FILTERS = 96
TEMPERATURES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.09, 0.06, 0.045, 0.03)
"""What scores are divided by before the softmax: the one of these that the true labels, out of fold, find
likeliest."""
UNIT = 1e-4
"""Probabilities are multiples of this, and at least this: no class is impossible."""

_PATCH, _STRIDE = 6, 2
_IMAGES_PER_FEATURE = 8  # no more features than the labels of half of the images can weigh
_SAMPLE = 1000  # images that filters, thresholds and scales are taken from
_IMAGE_ROWS = 64  # images encoded at once: their patches fit into a processor's cache
_EXACT_ROWS = 1000  # 1000 products of two numbers up to 127 stay below 2^24, the last whole float32
_CONTRAST, _FLAT, _BRIGHTEST = 24.0, 100.0, 64.0  # deviation that pixels are scaled to; floor; limit
_WHITENING = 0.1 * _CONTRAST**2
_FILTER_LENGTH = 4096.0
_FEATURE_SPREAD, _LARGEST_FEATURE, _INTERCEPT = 16.0, 127.0, 64
_PENALTY = 0.01
_WEIGHT_GRID = 2.0**30


class ImageRows(Protocol):
    """Images by rows: an array uint8 [N, 3, S, S], or what reads and resizes rows when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Int64s, /) -> Pixels: ...


@dataclass(frozen=True, eq=False)
class Confusions:
    """What a small model takes each image for.

    Attributes:
        probabilities: [N, K] of the classes, multiples of ``UNIT`` from ``UNIT`` to 1; rows sum to 1 up to
            the rounding. From the half of the model that saw neither the image nor its label.
        seed: of the model.
        filters: how many patches it compares images with.
        features: its size, D.
        temperature: one of ``TEMPERATURES``.
        accuracy: share of images whose true class is the likeliest, out of fold.
    """

    probabilities: Float64s
    seed: int
    filters: int
    features: int
    temperature: float
    accuracy: float

    def to_dict(self) -> dict[str, Any]:
        """All but the probabilities, as plain values for a record."""
        names = ("seed", "filters", "features", "temperature", "accuracy")
        return {name: getattr(self, name) for name in names}


def learn_confusions(images: ImageRows, labels: ArrayLike, num_classes: int, seed: int) -> Confusions:
    r"""Train a small model on each half of the images and let it judge the other half.

    Images are compared with F whitened patches of images, at every second place; responses beyond a threshold
    are added up over the four quadrants, for either sign, and scaled. On these features z and a constant,
    ridge regression fits indicators of the classes,

    .. math:: W = (Z^T Z + \lambda I)^{-1} Z^T Y, \qquad p_i = \mathrm{softmax}(z_i W / T),

    with :math:`\lambda` a hundredth of the mean of the diagonal of :math:`Z^T Z`. Memory beside the result is
    N x D bytes, and what the small chunks need that images are read in.

    Args:
        images: [N, 3, S, S], uint8, S in 8..32; asked for a few rows at a time.
        labels: [N] true labels in 0..K-1.
        num_classes: K, 2 or more.
        seed: which patches and which halves are drawn.

    Returns:
        The probabilities, and what is to be recorded of the model.

    Raises:
        DataError: labels are out of range, images are of another shape, or there are fewer than 2.

    Source: features in the way of Coates, Lee and Ng (2011), "An analysis of single-layer networks in
    unsupervised feature learning" (AISTATS): whitened random patches, a soft threshold, quadrants.
    Departures: the patches are whitened by a linear system instead of an eigenvalue decomposition
    (p' C^-1 x is the product of the two whitened patches), contrast is evened out per image and not per
    patch, the threshold of a filter is its mean absolute response, everything is rounded to whole numbers,
    and the classifier is ridge regression. To use out-of-fold confusions for noise is ours.
    """
    true = check_labels(labels, num_classes)
    _check_images(images, true, num_classes)
    everything = np.arange(len(true), dtype=np.int64)
    rng = step_generator(seed, "confusions")
    sample = rng.permutation(len(true))[:_SAMPLE]
    encoder = fit_encoder(images, sample, rng)
    features = np.empty((len(true), len(encoder.centre) + 1), dtype=np.int8)
    for rows in _split(everything, _IMAGE_ROWS):
        features[rows] = encoder.encode(images[rows])
    half = _draw_halves(true, rng)
    scores = np.empty((len(true), num_classes))
    for judged in (half, ~half):
        weights = _fit_ridge(features, true, np.flatnonzero(~judged), num_classes)
        for rows in _split(np.flatnonzero(judged), _EXACT_ROWS):
            scores[rows] = features[rows].astype(np.float64) @ weights
    temperature = _choose_temperature(scores[sample], true[sample])
    accuracy = float((scores.argmax(axis=1) == true).mean())
    for rows in _split(everything, _EXACT_ROWS):
        scores[rows] = _round(_softmax(scores[rows] / temperature))
    size = features.shape[1]
    return Confusions(scores, seed, encoder.filters.shape[1], size, temperature, accuracy)


@dataclass(frozen=True, eq=False)
class PatchEncoder:
    """Images into whole numbers: how much of each filter's patch is in each quadrant.

    Attributes:
        filters: [P, F] whitened patches, whole, each with absolute values that sum to about 4096.
        thresholds: [F] absolute responses up to these count as nothing; whole.
        centre: [8F] whole; taken off the pooled responses.
        spread: [8F] mean absolute deviations; divides what is left.
    """

    filters: Float32s
    thresholds: Float32s
    centre: Float64s
    spread: Float64s

    def encode(self, pixels: Pixels) -> NDArray[np.int8]:
        """Features int8 [n, 8F + 1] of images uint8 [n, 3, S, S]; the last one is the constant."""
        pooled = pool_responses(pixels, self.filters, self.thresholds)
        scaled = np.rint((pooled - self.centre) * (_FEATURE_SPREAD / self.spread))
        features = np.full((len(pixels), scaled.shape[1] + 1), _INTERCEPT, dtype=np.int8)
        features[:, :-1] = np.clip(scaled, -_LARGEST_FEATURE, _LARGEST_FEATURE)
        return features


def fit_encoder(images: ImageRows, sample: Int64s, rng: np.random.Generator) -> PatchEncoder:
    """Draw patches as filters and scale what they give, all by a sample of images; labels play no part."""
    filters = _whiten_patches(images, sample, rng)
    chunks = _split(sample, _IMAGE_ROWS)
    responses, count = np.zeros(filters.shape[1]), 0
    for rows in chunks:
        found = np.abs(respond(images[rows], filters)).reshape(-1, filters.shape[1])
        responses += found.sum(axis=0, dtype=np.float64)
        count += len(found)
    thresholds = np.floor(responses / count).astype(np.float32)
    pooled = np.concatenate([pool_responses(images[rows], filters, thresholds) for rows in chunks])
    pooled = pooled.astype(np.float64)
    centre = np.floor(pooled.sum(axis=0) / len(sample))
    spread = np.abs(pooled - centre).sum(axis=0) / len(sample)
    return PatchEncoder(filters, thresholds, centre, np.maximum(spread, 1.0))


def pool_responses(pixels: Pixels, filters: Float32s, thresholds: Float32s) -> Float32s:
    r"""Sum responses beyond their thresholds over quadrants.

    .. math:: f_{\pm, q, k} = \sum_{x \in q} \max(0, \pm r_k(x) - t_k)

    Args:
        pixels: uint8 [n, 3, S, S].
        filters: [P, F], whole.
        thresholds: [F], whole.

    Returns:
        [n, 8F], whole: sign, then quadrant (by rows), then filter.
    """
    responses = respond(pixels, filters)
    middle = responses.shape[1] // 2
    halves = (slice(None, middle), slice(middle, None))
    pooled = []
    for signed in (responses, -responses):
        active = np.maximum(signed - thresholds, 0)
        pooled += [active[:, rows, columns].sum(axis=(1, 2)) for rows in halves for columns in halves]
    return np.concatenate(pooled, axis=1)


def respond(pixels: Pixels, filters: Float32s) -> Float32s:
    """Products of every second patch with every filter: [n, places, places, F], whole."""
    patches = take_patches(pixels)
    places = round(patches.shape[1] ** 0.5)
    found: Float32s = patches.reshape(-1, patches.shape[2]) @ filters
    return found.reshape(len(pixels), places, places, -1)


def take_patches(pixels: Pixels) -> Float32s:
    """Every second 6 x 6 patch of images of even contrast: [n, places, 108], whole, within -64..64."""
    windows = np.lib.stride_tricks.sliding_window_view(_even_contrast(pixels), (_PATCH, _PATCH), axis=(2, 3))
    windows = windows[:, :, ::_STRIDE, ::_STRIDE].transpose(0, 2, 3, 1, 4, 5)
    images, height, width = windows.shape[:3]
    return windows.reshape(images, height * width, -1)


def solve_positive(matrix: Float64s, right: Float64s) -> Float64s:
    """Solve a positive definite system by Gaussian elimination, one step element by element for each column.

    A LAPACK routine is faster, but the last digits that it gives depend on the machine.

    Args:
        matrix: [D, D], symmetric and positive definite, so that no pivots need to be looked for.
        right: [D, M].

    Returns:
        [D, M], x in ``matrix @ x = right``.
    """
    left, solution = matrix.copy(), right.copy()
    size = len(left)
    room = np.empty_like(left)
    for column in range(size - 1):
        below = slice(column + 1, size)
        factors = left[below, column, None] / left[column, column]
        step = room[below, below]
        np.multiply(factors, left[column, below], out=step)
        left[below, below] -= step
        solution[below] -= factors * solution[column]
    for column in reversed(range(size)):
        solution[column] /= left[column, column]
        solution[:column] -= left[:column, column, None] * solution[column]
    return solution


def _even_contrast(pixels: Pixels) -> Float32s:
    """Images with mean 0 and a like deviation, rounded to whole numbers; nearly flat ones stay so."""
    values = pixels.reshape(len(pixels), -1).astype(np.float64)
    count = values.shape[1]
    total = values.sum(axis=1, keepdims=True)
    variance = (np.square(values).sum(axis=1, keepdims=True) * count - total * total) / count**2
    scaled = np.rint((values - total / count) * (_CONTRAST / np.sqrt(variance + _FLAT)))
    even: Float32s = np.clip(scaled, -_BRIGHTEST, _BRIGHTEST).astype(np.float32)
    return even.reshape(pixels.shape)


def _whiten_patches(images: ImageRows, sample: Int64s, rng: np.random.Generator) -> Float32s:
    """Patches drawn from the sample, whitened: [P, F]."""
    size = 3 * _PATCH**2
    total, products, count = np.zeros(size), np.zeros((size, size)), 0
    for rows in _split(sample, _IMAGE_ROWS):
        patches = take_patches(images[rows]).reshape(-1, size).astype(np.float64)
        total += patches.sum(axis=0)
        products += patches.T @ patches
        count += len(patches)
    mean = total / count
    covariance = products / count - mean[:, None] * mean
    covariance[np.diag_indices_from(covariance)] += _WHITENING
    number = min(MOST_FILTERS, max(1, len(images) // (8 * _IMAGES_PER_FEATURE)))
    candidates = take_patches(images[sample[rng.integers(len(sample), size=number)]])
    drawn = candidates[np.arange(number), rng.integers(candidates.shape[1], size=number)]
    whitened = solve_positive(covariance, (drawn - mean).T)
    # A running sum adds in one order; an ordinary one as the processor likes.
    length = np.cumsum(np.abs(whitened), axis=0)[-1]
    filters: Float32s = np.rint(whitened * (_FILTER_LENGTH / np.maximum(length, UNIT))).astype(np.float32)
    return filters


def _draw_halves(true: Int64s, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Whether an image is in the second half; each class is dealt out by turns."""
    shuffled = rng.permutation(len(true))
    dealt = shuffled[np.argsort(true[shuffled], kind="stable")]
    half = np.zeros(len(true), dtype=np.bool_)
    half[dealt[1::2]] = True
    return half


def _fit_ridge(features: NDArray[np.int8], true: Int64s, rows: Int64s, num_classes: int) -> Float64s:
    """Weights [D, K] of the regression, rounded so finely that the scores they give are exact sums."""
    size = features.shape[1]
    gram, moments = np.zeros((size, size)), np.zeros((size, num_classes))
    for chunk in _split(rows, _EXACT_ROWS):
        known = features[chunk].astype(np.float32)
        indicators = (true[chunk, None] == np.arange(num_classes)).astype(np.float32)
        gram += known.T @ known
        moments += known.T @ indicators
    gram[np.diag_indices(size)] += _PENALTY * (np.trace(gram) / size)
    return np.rint(solve_positive(gram, moments) * _WEIGHT_GRID) / _WEIGHT_GRID


def _choose_temperature(scores: Float64s, true: Int64s) -> float:
    def likelihood(temperature: float) -> float:
        probabilities = _softmax(scores / temperature)[np.arange(len(true)), true]
        # Rounded, so that temperatures under which all is certain tie, and the first of them is taken.
        return round(float(np.log(np.maximum(probabilities, UNIT)).mean()), 6)

    return max(TEMPERATURES, key=likelihood)


def _softmax(logits: Float64s) -> Float64s:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Float64s = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def _round(probabilities: Float64s) -> Float64s:
    units = round(1 / UNIT)
    return np.maximum(np.rint(probabilities * units), 1) / units


def _check_images(images: ImageRows, true: Int64s, num_classes: int) -> None:
    if num_classes < 2 or len(true) < 2:
        raise DataError(
            f"confusions need 2 classes and 2 images or more, not {num_classes} and {len(true)}; "
            "use another closed_kind"
        )
    if len(images) != len(true):
        raise DataError(f"{len(images)} images stand beside {len(true)} labels; expected as many")
    first = images[np.zeros(1, dtype=np.int64)]
    side = first.shape[-1]
    fits = first.ndim == 4 and first.shape[1:] == (3, side, side) and first.dtype == np.uint8
    if not fits or side not in SIDES:
        raise DataError(
            f"confusions are learned from images uint8 [N, 3, S, S] with S in {SIDES[0]}..{SIDES[-1]}, "
            f"not {first.dtype} {('N', *first.shape[1:])}; resize them"
        )


def _split(rows: Int64s, size: int) -> list[Int64s]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
