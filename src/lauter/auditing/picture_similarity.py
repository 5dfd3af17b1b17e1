r"""How much two pictures look like the same shot, and which pairs of many are worth the comparison.

Two pictures are compared by the edges of their thumbnails. Of a thumbnail in luma and two colour differences,
:math:`o = (Y, \tfrac32 (B - Y), \tfrac32 (R - Y))`, the six differences towards the right and the lower
neighbour are the gradient :math:`g_{yx}`, and its length is taken to the square root:

.. math:: v_{yx} = \frac{g_{yx}}{\sqrt{\lVert g_{yx} \rVert}}, \qquad
          c(v, w) = \frac{\sum_{yx} \langle v_{yx}, w_{yx} \rangle}
          {\sqrt{\sum_{yx} \lVert v_{yx} \rVert^2 \sum_{yx} \lVert w_{yx} \rVert^2}}

.. math:: s(a, b) = \max\left( \max_{\delta} c(v^a, T_\delta v^b),\;
          \max_\tau c(v^{G a}, v^{T_\tau b}) - 0.15,\;
          \max_\tau c(v^{G b}, v^{T_\tau a}) - 0.15 \right)

Here :math:`\delta` are the shifts by up to one cell, one sixteenth of the picture, over the cells where both
exist; :math:`\tau` are shifts by half a cell, and crops to nine tenths of each side from the middle, the
sides and the corners, over the inner cells. Sampling between cells blurs, so that the other picture is
blurred too (G, with weights 1/4, 1/2, 1/4), which makes strangers more alike: hence the 0.15 taken off.
The :math:`\tau` cost time and are tried only where the shifts reach 0.45 but not 0.7, or what else is asked.

Brightness falls out, and contrast is divided out. The square root is what keeps pictures apart that share one
strong edge, such as ships before different seas: weak edges all over a picture together outweigh it.

Comparing all pairs is out of reach for a million pictures. Candidates come from a perceptual hash: the lowest
frequencies of the thumbnail, brought to about one scale, are projected on random directions, and a hash has a
bit for each sign. Under every hash of several, pictures are sorted, and neighbours in the order are paired.
Few pictures are paired each with each.

Source: ours. Hashes of random directions are those of Charikar (2002), sorting under several of them is the
idea of the LSH forest of Bawa, Condie and Ganesan (2005).
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lauter.auditing.image_measures import LUMA, THUMBNAIL_SIDE, Float32s
from lauter.data.dataset import Int64s, Pixels

CHROMA_WEIGHT = 1.5
"""Weight of a colour difference beside luma."""
FREQUENCIES = 4
"""Frequencies 0..3 along each side, the mean left out, go into the hash."""
HASH_BITS = 32

_DIMENSIONS = 24
_SHRINKAGE = 0.3
_MIN_COSINE = 0.6
_MIN_COARSE = 0.35
"""Cosines of hashed vectors and of coarse edges under which a pair is not worth a comparison."""
_COARSE = 5
_FEW = 500
"""Pictures up to which all pairs are proposed."""
_REALIGNED_FROM = 0.45
REALIGNMENT_COST = 0.15
"""What a realignment takes off the similarity."""
_CROP = 0.9
_CHUNK = 128
_PAIR_CHUNK = 1 << 18


def compare_thumbnails(first: Pixels, second: Pixels, *, realign_below: float = 0.7) -> Float32s:
    """Similarity of pairs of pictures: s of the module's formula.

    Args:
        first: uint8 [P, 3, 16, 16].
        second: the same number; or one, [1, 3, 16, 16], compared with each of the first.
        realign_below: similarity from which on a realignment is not tried; 0 tries none.

    Returns:
        [P] in -1..1, the same for (a, b) and (b, a); 0 where a picture has one colour.
    """
    second = np.broadcast_to(second, first.shape)
    found = np.empty(len(first), dtype=np.float32)
    for start in range(0, len(first), _CHUNK):
        rows = slice(start, start + _CHUNK)
        one, other = _opponent(first[rows]), _opponent(second[rows])
        best = _correlate_shifted(_edges(one), _edges(other))
        again = np.flatnonzero((best >= _REALIGNED_FROM) & (best < realign_below))
        if len(again):
            fine = np.maximum(
                _correlate_realigned(one[again], other[again]), _correlate_realigned(other[again], one[again])
            )
            best[again] = np.maximum(best[again], fine - REALIGNMENT_COST)
        found[rows] = best
    return found


def mirror(thumbnails: Pixels) -> Pixels:
    """Thumbnails [P, 3, 16, 16] with left and right swapped."""
    return np.ascontiguousarray(thumbnails[..., ::-1])


def propose_pairs(
    thumbnails: Pixels, *, tables: int, window: int, mirrored: bool, generator: np.random.Generator
) -> tuple[Int64s, NDArray[np.bool_]]:
    """Pairs of pictures that may be twins, by hashes of their lowest frequencies.

    Args:
        thumbnails: uint8 [M, 3, 16, 16].
        tables: hashes; each is another chance for a pair to be found.
        window: neighbours after each picture in the order of a hash that it is paired with.
        mirrored: whether to pair pictures with mirror images of others too.
        generator: draws the directions.

    Returns:
        Pairs [P, 2] of rows, the smaller first, each once per orientation, in order; and [P] whether the
        second is to be mirrored.
    """
    count = len(thumbnails)
    if count < 2:
        return np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=bool)
    keys = (
        _pair_all(count, mirrored)
        if count <= _FEW
        else _pair_hashed(thumbnails, tables, window, mirrored, generator)
    )
    flipped, keys = np.divmod(keys, count * count)
    first, second = np.divmod(keys, count)
    coarse = _coarse_edges(thumbnails, mirrored)
    alike = np.zeros(len(keys), dtype=bool)
    for start in range(0, len(keys), _PAIR_CHUNK):
        part = slice(start, start + _PAIR_CHUNK)
        one, other = coarse[first[part]], coarse[second[part] + flipped[part] * count]
        alike[part] = np.einsum("pd,pd->p", one, other) >= _MIN_COARSE
    return np.stack([first[alike], second[alike]], axis=1), flipped[alike].astype(bool)


def describe(thumbnails: Pixels) -> Float32s:
    r"""The lowest frequencies of thumbnails, what the hash is made of.

    The cosine transform of luma and colour differences at frequencies (u, v) below ``FREQUENCIES``, the mean
    left out, times :math:`(u^2 + v^2)^{1/4}`, since photographs lose strength with frequency; scaled to
    length 1.

    Args:
        thumbnails: uint8 [N, 3, 16, 16].

    Returns:
        float32 [N, 45]; 0 for a picture of one colour.
    """
    basis, scale = _cosines(), _frequency_weights()
    vectors = np.empty((len(thumbnails), 3 * scale.size), dtype=np.float32)
    for start in range(0, len(thumbnails), _CHUNK):
        planes = _opponent(thumbnails[start : start + _CHUNK])
        spectrum = (basis @ planes @ basis.T).reshape(len(planes), 3, -1)[:, :, 1:] * scale
        vectors[start : start + _CHUNK] = spectrum.reshape(len(planes), -1)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    # One colour leaves rounding errors, which are no direction.
    return np.where(lengths > 1e-2, vectors / np.maximum(lengths, 1e-2), 0).astype(np.float32)


def _pair_all(count: int, mirrored: bool) -> Int64s:
    """Keys of all pairs, see :func:`_pair_neighbours`."""
    first, second = np.triu_indices(count, 1)
    keys = first.astype(np.int64) * count + second
    return np.concatenate([keys, keys + count * count]) if mirrored else keys


def _pair_hashed(
    thumbnails: Pixels, tables: int, window: int, mirrored: bool, generator: np.random.Generator
) -> Int64s:
    """Keys of pairs that stand next to each other under a hash, see :func:`_pair_neighbours`."""
    vectors = describe(thumbnails)
    if mirrored:
        vectors = np.concatenate([vectors, vectors * _mirror_signs()])
    vectors = _even_out(vectors)
    weights = np.left_shift(1, np.arange(HASH_BITS, dtype=np.uint64), dtype=np.uint64)
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    keys: Int64s = np.empty(0, dtype=np.int64)
    for _ in range(tables):
        directions = generator.standard_normal((vectors.shape[1], HASH_BITS)).astype(np.float32)
        hashes = _pack_bits(vectors, directions, weights)
        order = np.argsort(hashes, kind="stable")
        fresh = [_pair_neighbours(order, step, units, len(thumbnails)) for step in range(1, window + 1)]
        keys = _sort_distinct(np.concatenate([keys, *fresh]))
    return keys


def _opponent(thumbnails: Pixels) -> Float32s:
    """Luma and two colour differences [P, 3, 16, 16] of thumbnails."""
    values = thumbnails.reshape(len(thumbnails), 3, -1).astype(np.float32)
    return (_opponent_matrix() @ values).reshape(thumbnails.shape)


def _edges(planes: Float32s) -> Float32s:
    """Gradients of planes with square-rooted length, [P, 6, 15, 15]: v of the module's formula."""
    here = planes[:, :, :-1, :-1]
    gradient = np.empty((len(planes), 6, THUMBNAIL_SIDE - 1, THUMBNAIL_SIDE - 1), dtype=np.float32)
    np.subtract(planes[:, :, :-1, 1:], here, out=gradient[:, :3])
    np.subtract(planes[:, :, 1:, :-1], here, out=gradient[:, 3:])
    length = np.sqrt(np.einsum("pcyx,pcyx->pyx", gradient, gradient))
    # Under a hundredth of a level there is no edge but a rounding error.
    gradient /= np.sqrt(np.maximum(length, 1e-2))[:, None]
    return gradient


def _correlate_shifted(first: Float32s, second: Float32s) -> Float32s:
    """Largest correlation of edges over shifts by up to one cell."""
    energy = [np.einsum("pcyx,pcyx->pyx", edges, edges) for edges in (first, second)]
    best = np.full(len(first), -1, dtype=np.float32)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            mine, other = _overlap(down, right), _overlap(-down, -right)
            product = np.einsum("pcyx,pcyx->p", first[:, :, *mine], second[:, :, *other])
            power = energy[0][:, *mine].sum((1, 2)) * energy[1][:, *other].sum((1, 2))
            np.maximum(best, product / np.sqrt(np.maximum(power, 1e-6)), out=best)
    return best


def _correlate_realigned(still: Float32s, moved: Float32s) -> Float32s:
    """Largest correlation of the inner edges of one picture, blurred, with those of another, moved."""
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    blur = _blur_weights()
    mine = _edges(_resample(still, blur, blur))[inner]
    power = np.einsum("pcyx,pcyx->p", mine, mine)
    best = np.full(len(still), -1, dtype=np.float32)
    for down, right in _realignments():
        other = _edges(_resample(moved, down, right))[inner]
        product = np.einsum("pcyx,pcyx->p", mine, other)
        power_moved = np.einsum("pcyx,pcyx->p", other, other)
        np.maximum(best, product / np.sqrt(np.maximum(power * power_moved, 1e-6)), out=best)
    return best


def _resample(planes: Float32s, down: Float32s, right: Float32s) -> Float32s:
    return np.asarray(down @ planes @ right.T, dtype=np.float32)


def _overlap(down: int, right: int) -> tuple[slice, slice]:
    side = THUMBNAIL_SIDE - 1
    return (
        slice(max(0, down), side + min(0, down)),
        slice(max(0, right), side + min(0, right)),
    )


def _even_out(vectors: Float32s) -> Float32s:
    """Centre vectors and bring their main directions to about one variance, so that hashes differ."""
    centred = vectors - vectors.mean(0)
    covariance = centred.T @ centred / len(centred)
    variances, directions = np.linalg.eigh(covariance.astype(np.float64))
    variances, directions = variances[::-1][:_DIMENSIONS], directions[:, ::-1][:, :_DIMENSIONS]
    floor = _SHRINKAGE * variances.mean() + 1e-12
    scaled = centred @ (directions / np.sqrt(np.maximum(variances, 0) + floor)).astype(np.float32)
    return np.asarray(scaled)


def _pack_bits(vectors: Float32s, directions: Float32s, weights: NDArray[np.uint64]) -> NDArray[np.uint64]:
    hashes = np.empty(len(vectors), dtype=np.uint64)
    for start in range(0, len(vectors), _PAIR_CHUNK):
        bits = vectors[start : start + _PAIR_CHUNK] @ directions > 0
        hashes[start : start + _PAIR_CHUNK] = (bits * weights).sum(1, dtype=np.uint64)
    return hashes


def _pair_neighbours(order: Int64s, step: int, units: Float32s, count: int) -> Int64s:
    """Keys of the pairs ``step`` apart in an order that are worth a comparison.

    Rows from ``count`` on are mirror images. A key is (flipped * count + smaller) * count + larger.
    """
    found = []
    for start in range(0, len(order) - step, _PAIR_CHUNK):
        stop = min(start + _PAIR_CHUNK, len(order) - step)
        one, other = order[start:stop], order[start + step : stop + step]
        alike = np.einsum("pd,pd->p", units[one], units[other]) >= _MIN_COSINE
        one, other = one[alike], other[alike]
        rows, others = one % count, other % count
        # Two mirror images are the same pair as the two images, and an image is no twin of its own mirror.
        new = (rows != others) & ((one < count) | (other < count))
        rows, others, flipped = rows[new], others[new], (one >= count)[new] | (other >= count)[new]
        found.append((flipped * count + np.minimum(rows, others)) * count + np.maximum(rows, others))
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def _coarse_edges(thumbnails: Pixels, mirrored: bool) -> Float32s:
    """Edges summed over 3 x 3 cells, [M, 150] of length 1; those of mirror images behind where asked for."""
    if mirrored:
        return np.concatenate([_coarse_edges(thumbnails, False), _coarse_edges(mirror(thumbnails), False)])
    coarse = np.empty((len(thumbnails), 6 * _COARSE**2), dtype=np.float32)
    side = (THUMBNAIL_SIDE - 1) // _COARSE
    for start in range(0, len(thumbnails), _CHUNK):
        edges = _edges(_opponent(thumbnails[start : start + _CHUNK]))
        cells = edges.reshape(len(edges), 6, _COARSE, side, _COARSE, side).sum((3, 5))
        coarse[start : start + _CHUNK] = cells.reshape(len(edges), -1)
    coarse /= np.maximum(np.linalg.norm(coarse, axis=1, keepdims=True), 1e-6)
    return coarse


def _sort_distinct(keys: Int64s) -> Int64s:
    """Distinct keys in order. Sorting beats the hash table of ``numpy.unique`` many times over here."""
    keys.sort()
    fresh = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=fresh[1:])
    return keys[fresh]


@lru_cache(maxsize=1)
def _opponent_matrix() -> Float32s:
    """[3, 3] from red, green and blue to luma and the two weighted colour differences."""
    luma, colours = np.array(LUMA), np.eye(3)
    rows = [luma, CHROMA_WEIGHT * (colours[2] - luma), CHROMA_WEIGHT * (colours[0] - luma)]
    return np.stack(rows).astype(np.float32)


@lru_cache(maxsize=1)
def _realignments() -> list[tuple[Float32s, Float32s]]:
    """Sampling weights along both sides, each [16, 16]: half-cell shifts, and crops to nine tenths."""
    halves = [(_sample_weights(down, 1), _sample_weights(right, 1)) for down, right in _shifts(0.5)]
    margin = (1 - _CROP) * THUMBNAIL_SIDE / 2
    places = [(0.0, 0.0), *_shifts(margin)]
    return halves + [(_sample_weights(down, _CROP), _sample_weights(right, _CROP)) for down, right in places]


def _shifts(step: float) -> list[tuple[float, float]]:
    """The eight shifts by one step down, right, or both."""
    around = (-step, 0.0, step)
    return [(down, right) for down in around for right in around if (down, right) != (0.0, 0.0)]


def _sample_weights(shift: float, scale: float) -> Float32s:
    """[16, 16] linear interpolation at scaled and shifted places; beyond the margin its cell repeats."""
    middle = (THUMBNAIL_SIDE - 1) / 2
    cells = np.arange(THUMBNAIL_SIDE)
    places = np.clip((cells - middle) * scale + middle + shift, 0, THUMBNAIL_SIDE - 1)
    weights = np.maximum(0, 1 - np.abs(places[:, None] - cells))
    return np.asarray(weights, dtype=np.float32)


@lru_cache(maxsize=1)
def _blur_weights() -> Float32s:
    """[16, 16] weights 1/4, 1/2, 1/4; beyond the margin its cell repeats."""
    return np.asarray((_sample_weights(-0.5, 1) + _sample_weights(0.5, 1)) / 2, dtype=np.float32)


@lru_cache(maxsize=1)
def _cosines() -> Float32s:
    """[FREQUENCIES, 16], orthonormal rows."""
    places = np.arange(THUMBNAIL_SIDE) + 0.5
    rows = np.cos(np.pi / THUMBNAIL_SIDE * np.arange(FREQUENCIES)[:, None] * places)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


@lru_cache(maxsize=1)
def _frequency_weights() -> Float32s:
    """[FREQUENCIES^2 - 1] weight of each frequency but the mean."""
    squares = np.square(np.arange(FREQUENCIES, dtype=np.float32))
    return np.asarray(np.power(squares[:, None] + squares, 0.25).reshape(-1)[1:])


@lru_cache(maxsize=1)
def _mirror_signs() -> Float32s:
    """[3 * (FREQUENCIES^2 - 1)] what mirroring does to a description: odd frequencies across change sign."""
    across = np.tile(np.arange(FREQUENCIES), FREQUENCIES)[1:]
    return np.tile(np.where(across % 2, -1, 1), 3).astype(np.float32)
