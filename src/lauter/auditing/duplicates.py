r"""Near-duplicates: pictures of the same shot, in groups around a centre, and what they give away.

Exact copies have the same decoded pixels. Near ones have thumbnails whose edges agree, as
``auditing/picture_similarity.py`` measures it: another compression, size, brightness, contrast or tint, or a
slight crop or shift; not another moment of the same scene, as far as 16 x 16 cells can tell. Mirror images
count only on request, because letters, digits and arrows mean something else in a mirror.

Where all pictures are laid out alike, as scanned digits and X-rays are, strangers look like twins elsewhere.
So the bar rises with what strangers reach, which random pairs tell. With the quartiles :math:`q` of their
similarities,

.. math:: b = q_{1/2} + 3.3 (q_{3/4} - q_{1/2}), \qquad
          \text{bar} = \max\left(\text{min\_similarity},\;
          \min\left(0.95, 1 - \tfrac12 (1 - \min(b, 1))^2\right)\right)

where b is about the 99% quantile of a bell, read off its middle so that twins among the random pairs do not
sway it. For photographs b is near 0.2 and the bar stays where it was set; it ends at 0.95, which copies that
were merely encoded again exceed in any set.

Blank pictures have no twins at all, and featureless ones exact copies only: there is nothing in them that
could tell one shot from another.

Source: ours; the constants were chosen by looking at pairs of photographs and of digits.
"""

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lauter.auditing.feature_agreement import CentredFeatures
from lauter.auditing.image_faults import measure_detail
from lauter.auditing.image_measures import Float32s, ImageMeasures, count_cores
from lauter.auditing.picture_similarity import REALIGNMENT_COST, compare_thumbnails, mirror, propose_pairs
from lauter.data.dataset import Int64s, Pixels
from lauter.errors import ConfigError, DataError

ALONE = -1
"""Group of an image without a near-duplicate; twin of an image without one in another split."""

Bools = NDArray[np.bool_]
_STRANGERS = 10_000
"""Random pairs that tell what strangers reach."""
_HIGHEST_BAR = 0.95
_HIGHEST_COSINE = 0.9
_PART = 4096
_FEWEST = 20
"""Pictures from which on random pairs tell what strangers reach."""


@dataclass(frozen=True)
class DuplicateRules:
    """What counts as the same picture, and how hard to look for it.

    Attributes:
        min_similarity: smallest similarity of the edges of two thumbnails, in 0..1; at the default a
            picture is the same after heavy compression, a change of brightness or a crop of a tenth.
            The bar is higher in sets of 20 pictures or more where strangers look alike.
        blank_spread: levels of 0..255; pictures whose pixels spread by at most this have no twins.
        min_detail: levels; pictures that a smooth run of colour explains up to this have exact copies only.
        mirrored: whether a mirror image is the same picture.
        tables: hashes under which pictures are sorted to find candidates; time grows with it.
        window: neighbours in each order that are candidates; time grows with it.
    """

    min_similarity: float = 0.7
    blank_spread: float = 2.0
    min_detail: float = 4.0
    mirrored: bool = False
    tables: int = 48
    window: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.min_similarity <= 1:
            raise ConfigError(f"min_similarity must be above 0 and at most 1, not {self.min_similarity}")
        for name in ("blank_spread", "min_detail"):
            if not 0 <= getattr(self, name) < 128:
                raise ConfigError(f"{name} must be in 0..128 levels, not {getattr(self, name)}")
        for name in ("tables", "window"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class Twins:
    """Which of N images show the same picture.

    Attributes:
        original: [N] the first image with the very same pixels; the image itself where there is none before.
        pairs: [P, 2] originals that are near-duplicates, the smaller row first.
        similarity: [P] of the pairs.
        bar: smallest similarity that counted.
    """

    original: Int64s
    pairs: Int64s
    similarity: Float32s
    bar: float


@dataclass(frozen=True, eq=False)
class DuplicateGroups:
    """Near-duplicates in groups; every member is a near-duplicate of its group's centre.

    Attributes:
        group: [N] number of the group, ``ALONE`` (-1) where there is none; in order of the first members.
        centres: [G] row of each group's centre.
        similarity: [N] to the centre: 1 for the centre itself and its exact copies; NaN where alone.
    """

    group: Int64s
    centres: Int64s
    similarity: Float32s


def find_twins(
    measures: ImageMeasures,
    rules: DuplicateRules | None = None,
    *,
    features: NDArray[np.floating] | None = None,
    generator: np.random.Generator | None = None,
) -> Twins:
    """Find exact copies and near-duplicates.

    Candidates come from hashes (:func:`lauter.auditing.picture_similarity.propose_pairs`), so that time
    grows little faster than the number of images; each is then compared. The search may miss a pair, and
    finds none that the comparison does not confirm.

    Args:
        measures: of N images.
        rules: what counts; the defaults where None.
        features: [n, D] of any network, of the first n images, to confirm near-duplicates: the cosine of
            two, centred, must be above what about 95% of strangers stay below, or above 0.9. Rows that are
            not finite, and images without a row, confirm whatever they are compared with, and so do all
            where fewer than 20 are finite.
        generator: draws the hashes, and the random pairs that features are compared with; by default that
            of seed 0.

    Returns:
        Copies and confirmed pairs.

    Raises:
        DataError: the features are not [n, D], or more than the images.
    """
    rules, generator = rules or DuplicateRules(), generator or np.random.default_rng(0)
    original = _find_originals(measures, rules)
    comparison = _prepare_comparison(measures, rules, features, generator)
    telling = measure_detail(measures.thumbnails) > rules.min_detail
    single = original == np.arange(len(measures))
    rows = np.flatnonzero(measures.readable & telling & single & (measures.spread > rules.blank_spread))
    proposed, flipped = propose_pairs(
        measures.thumbnails[rows],
        tables=rules.tables,
        window=rules.window,
        mirrored=rules.mirrored,
        generator=generator,
    )
    pairs = rows[proposed]
    bar = _raise_bar(comparison, rows, rules, generator)
    similarity = comparison.compare(pairs[:, 0], pairs[:, 1], flipped, bar)
    near = similarity >= bar
    return Twins(original, *_take_best(pairs[near], similarity[near]), bar)


def group_twins(
    measures: ImageMeasures,
    twins: Twins,
    rules: DuplicateRules | None = None,
    *,
    features: NDArray[np.floating] | None = None,
    generator: np.random.Generator | None = None,
) -> DuplicateGroups:
    """Make groups in which every member is a near-duplicate of the centre.

    Pairs are first joined into components. In a component the image with the most twins becomes a centre,
    every image that is a near-duplicate of it joins, and so on with the others: no image is in a group only
    because a chain of others leads there.

    Args:
        measures: of N images.
        twins: what :func:`find_twins` found in them, or in more, of which these are the first.
        rules: as for :func:`find_twins`.
        features: likewise.
        generator: likewise.

    Returns:
        Groups of two images or more.
    """
    rules, generator = rules or DuplicateRules(), generator or np.random.default_rng(0)
    count = len(measures)
    comparison = _prepare_comparison(measures, rules, features, generator)
    original = twins.original[:count]
    pairs = twins.pairs[(twins.pairs < count).all(1)]
    centre = original.copy()
    similarity = np.ones(count, dtype=np.float32)
    degree = np.bincount(pairs.reshape(-1), minlength=count)
    for component in _join_pairs(pairs):
        left = component[np.lexsort((component, -degree[component]))]
        while len(left) > 1:
            head, rest = left[0], left[1:]
            found = comparison.compare_with(int(head), rest, twins.bar)
            near = found >= twins.bar
            centre[rest[near]], similarity[rest[near]] = head, found[near]
            left = rest[~near]
    # Exact copies go where their originals went.
    centre, similarity = centre[original], similarity[original]
    return _number_groups(centre, similarity)


@dataclass(frozen=True, eq=False)
class _Comparison:
    """Compares images by thumbnail and, where there are any, by features."""

    thumbnails: Pixels
    mirrored: bool
    features: CentredFeatures | None
    min_cosine: float

    def compare(self, first: Int64s, second: Int64s, flipped: Bools, bar: float) -> Float32s:
        """Similarity [P] of pairs of rows, the second mirrored where told; -1 where features disagree."""
        return self._confirm(self.compare_edges(first, second, flipped, bar), first, second)

    def compare_edges(self, first: Int64s, second: Int64s, flipped: Bools, bar: float) -> Float32s:
        """As :meth:`compare`, whatever features say."""
        found = np.empty(len(first), dtype=np.float32)

        def compare_part(start: int) -> None:
            part = slice(start, start + _PART)
            others = self.thumbnails[second[part]]
            others[flipped[part]] = mirror(others[flipped[part]])
            mine = self.thumbnails[first[part]]
            found[part] = compare_thumbnails(mine, others, realign_below=_limit_realigning(bar))

        with ThreadPoolExecutor(count_cores()) as executor:
            list(executor.map(compare_part, range(0, len(first), _PART)))
        return found

    def compare_with(self, centre: int, rows: Int64s, bar: float) -> Float32s:
        """Similarity [P] of rows with one image, mirrored or not where that counts."""
        one, many, below = self.thumbnails[centre][None], self.thumbnails[rows], _limit_realigning(bar)
        found = compare_thumbnails(many, one, realign_below=below)
        if self.mirrored:
            found = np.maximum(found, compare_thumbnails(many, mirror(one), realign_below=below))
        return self._confirm(found, np.full(len(rows), centre, dtype=np.int64), rows)

    def _confirm(self, similarity: Float32s, first: Int64s, second: Int64s) -> Float32s:
        if self.features is None:
            return similarity
        cosine = self.features.compare(first, second)  # NaN confirms
        return np.where(cosine < self.min_cosine, np.float32(-1), similarity)


def _prepare_comparison(
    measures: ImageMeasures,
    rules: DuplicateRules,
    features: NDArray[np.floating] | None,
    generator: np.random.Generator,
) -> _Comparison:
    if features is None:
        return _Comparison(measures.thumbnails, rules.mirrored, None, -1.0)
    count = len(measures)
    if features.ndim != 2 or len(features) > count:
        raise DataError(
            f"features must be [n, D] of the first n of {count} images, not {list(features.shape)}"
        )
    centred = CentredFeatures(features)
    known = np.flatnonzero(centred.known)
    min_cosine = -1.0
    if len(known) >= _FEWEST:
        cosine = centred.compare(*_draw_strangers(known, generator))
        min_cosine = min(_HIGHEST_COSINE, _extrapolate(cosine, 2.44))
    return _Comparison(measures.thumbnails, rules.mirrored, centred, min_cosine)


def _raise_bar(
    comparison: _Comparison, rows: Int64s, rules: DuplicateRules, generator: np.random.Generator
) -> float:
    """The smallest similarity that counts among these rows: the bar of the module's formula."""
    if len(rows) < _FEWEST:
        return rules.min_similarity
    nothing = np.zeros(_STRANGERS, dtype=bool)
    reached = comparison.compare_edges(*_draw_strangers(rows, generator), nothing, 0)
    strangers = min(1.0, _extrapolate(reached, 3.3))
    return max(rules.min_similarity, min(_HIGHEST_BAR, 1 - (1 - strangers) ** 2 / 2))


def _limit_realigning(bar: float) -> float:
    """Up to where a realignment is worth a try: not beyond the bar, nor where it cannot lift a pair to it."""
    return bar if bar < 1 - REALIGNMENT_COST else 0


def _draw_strangers(rows: Int64s, generator: np.random.Generator) -> tuple[Int64s, Int64s]:
    """Random pairs of two different rows."""
    first = generator.integers(0, len(rows), _STRANGERS)
    second = (first + generator.integers(1, len(rows), _STRANGERS)) % len(rows)
    return rows[first], rows[second]


def _extrapolate(values: Float32s, steps: float) -> float:
    """The median and so many times what the upper quartile lies above it: robust to a few large values."""
    middle, upper = np.quantile(values, [0.5, 0.75])
    return float(middle + steps * (upper - middle))


def _find_originals(measures: ImageMeasures, rules: DuplicateRules) -> Int64s:
    """[N] the first image with the same pixels; blank and unreadable images are their own."""
    original = np.arange(len(measures), dtype=np.int64)
    rows = np.flatnonzero(measures.readable & (measures.spread > rules.blank_spread))
    _, first, place = np.unique(measures.hashes[rows], return_index=True, return_inverse=True)
    original[rows] = rows[first][place]
    return original


def _take_best(pairs: Int64s, similarity: Float32s) -> tuple[Int64s, Float32s]:
    """Each pair once, in order, in the orientation that fits best."""
    order = np.lexsort((-similarity, pairs[:, 1], pairs[:, 0]))
    pairs, similarity = pairs[order], similarity[order]
    fresh = np.ones(len(pairs), dtype=bool)
    fresh[1:] = (pairs[1:] != pairs[:-1]).any(1)
    return pairs[fresh], similarity[fresh]


def _join_pairs(pairs: Int64s) -> Iterator[Int64s]:
    """Connected components of pairs, by union-find: rows, ascending."""
    parent: dict[int, int] = {}

    def find_root(row: int) -> int:
        while parent.setdefault(row, row) != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for one, other in pairs.tolist():
        one, other = sorted((find_root(one), find_root(other)))
        parent[other] = one
    members: dict[int, list[int]] = defaultdict(list)
    for row in sorted(parent):
        members[find_root(row)].append(row)
    for rows in members.values():
        yield np.array(rows, dtype=np.int64)


def _number_groups(centre: Int64s, similarity: Float32s) -> DuplicateGroups:
    """Groups of the images that share a centre, numbered by their first members."""
    rows = np.arange(len(centre))
    sizes = np.bincount(centre, minlength=len(centre))
    grouped = np.flatnonzero(sizes[centre] > 1)
    heads, first, place = np.unique(centre[grouped], return_index=True, return_inverse=True)
    by_first = np.argsort(grouped[first])
    number = np.empty(len(heads), dtype=np.int64)
    number[by_first] = np.arange(len(heads))
    group = np.full(len(rows), ALONE, dtype=np.int64)
    group[grouped] = number[place]
    return DuplicateGroups(
        group=group,
        centres=heads[by_first],
        similarity=np.where(group == ALONE, np.float32(np.nan), similarity),
    )
