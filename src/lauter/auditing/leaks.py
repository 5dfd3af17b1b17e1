"""What twins give away: pictures that stand in two splits, and labels that contradict each other."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lauter.auditing.duplicates import ALONE, Twins
from lauter.data.dataset import UNLABELLED, Int64s
from lauter.errors import DataError


def find_leaks(twins: Twins, splits: Sequence[str] | NDArray[np.str_]) -> Int64s:
    """For each image its closest twin in another split.

    Args:
        twins: of N images.
        splits: [N] name of the split that each image is in.

    Returns:
        [N] row of an exact copy in another split, else of the most similar near-duplicate there, the first
        of equals; ``ALONE`` (-1) where there is none.

    Raises:
        DataError: there are not as many splits as images.
    """
    count = len(twins.original)
    if len(splits) != count:
        raise DataError(f"{len(splits)} splits for {count} images; name one for each")
    names, codes = np.unique(np.asarray(splits), return_inverse=True)
    leaks = np.full(count, ALONE, dtype=np.int64)
    if len(names) < 2:
        return leaks
    copies = np.bincount(twins.original, minlength=count)
    paired = np.zeros(count, dtype=bool)
    paired[twins.pairs.reshape(-1)] = True
    rows = np.flatnonzero((copies[twins.original] > 1) | paired[twins.original])
    places = list(zip(rows.tolist(), twins.original[rows].tolist(), codes[rows].tolist(), strict=True))
    first: dict[int, dict[int, int]] = defaultdict(dict)  # original -> split -> its first row there
    for row, original, split in places:
        first[original].setdefault(split, row)
    nearest: dict[int, list[int]] = defaultdict(list)
    for pair in np.argsort(-twins.similarity, kind="stable").tolist():
        one, other = twins.pairs[pair].tolist()
        nearest[one].append(other)
        nearest[other].append(one)
    for row, original, split in places:
        for twin in (original, *nearest[original]):
            elsewhere = [found for part, found in first[twin].items() if part != split]
            if elsewhere:
                leaks[row] = min(elsewhere)
                break
    return leaks


def find_conflicts(group: Int64s, labels: Int64s) -> NDArray[np.bool_]:
    """Which labelled images have a near-duplicate with another given label: one of the two is wrong.

    Args:
        group: [N] group of each image, -1 where alone.
        labels: [N] given labels, -1 where there is none; these count for nothing.

    Returns:
        [N] mask of all labelled members of groups whose labels differ.

    Raises:
        DataError: the lengths differ.
    """
    if len(group) != len(labels):
        raise DataError(f"{len(labels)} labels for the groups of {len(group)} images; hand over one for each")
    rows = np.flatnonzero((group != ALONE) & (labels != UNLABELLED))
    conflicts = np.zeros(len(group), dtype=bool)
    if len(rows):
        size = int(group.max()) + 1
        lowest, highest = np.full(size, np.iinfo(np.int64).max), np.full(size, -1, dtype=np.int64)
        np.minimum.at(lowest, group[rows], labels[rows])
        np.maximum.at(highest, group[rows], labels[rows])
        conflicts[rows] = (lowest < highest)[group[rows]]
    return conflicts
