"""Open noise: images of no class in the place of images of a class, under labels that are kept."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lauter.errors import DataError
from lauter.noise.labels import check_rate

Int64s = NDArray[np.int64]

CIFAR100_LIKE_CIFAR10 = (
    "bus",
    "pickup_truck",
    "streetcar",
    "tractor",
    "fox",
    "wolf",
    "leopard",
    "lion",
    "tiger",
)
"""CIFAR-100 classes that a person with only CIFAR-10's names could call by one of them.

Road vehicles that pass for an automobile or a truck, wild dogs for a dog, big cats for a cat. CIFAR-100 has
no birds, deer, frogs, horses, ships or aeroplanes. (Our choice.)
"""
CIFAR10_LIKE_CIFAR100 = ("automobile", "truck", "cat", "dog")
"""CIFAR-10 classes that meet the same CIFAR-100 classes the other way round. (Our choice.)"""


def find_candidates(
    labels: ArrayLike,
    foreign_names: Sequence[str],
    class_names: Sequence[str],
    left_out: Collection[str] = (),
) -> tuple[Int64s, tuple[str, ...]]:
    """Images of a foreign set that belong to none of our classes.

    Foreign classes with the name of one of ours (case, and _ or - for a space, do not count) are left out,
    and so are those named in ``left_out``.

    Args:
        labels: [M] labels of the foreign set; unlabelled images (-1) are no candidates, for who knows.
        foreign_names: the foreign set's classes.
        class_names: our classes.
        left_out: further foreign classes that overlap with ours in meaning.

    Returns:
        Rows of the candidates, ascending, and the names of the foreign classes that were left out.

    Raises:
        DataError: no candidate is left.
    """
    ours = {_fold(name) for name in (*class_names, *left_out)}
    out = tuple(name for name in foreign_names if _fold(name) in ours)
    usable = np.array([*(name not in out for name in foreign_names), False])
    rows = np.flatnonzero(usable[np.asarray(labels, dtype=np.int64)]).astype(np.int64)
    if len(rows) == 0:
        raise DataError(
            f"no image of the open source is left: {len(out)} of its {len(foreign_names)} classes overlap "
            "with ours, and unlabelled images do not count; choose another source"
        )
    return rows, out


def choose_open(
    eligible: NDArray[np.bool_], rate: float, candidates: ArrayLike, rng: np.random.Generator
) -> tuple[Int64s, Int64s]:
    """Choose which images are replaced, and by which foreign images.

    Args:
        eligible: [N] whether an image may be replaced.
        rate: share of all N images to replace; round(rate * N) of them are.
        candidates: rows of the foreign set to choose from; each is used once at most.
        rng: drawn from.

    Returns:
        Rows to replace, ascending, and the foreign row for each.

    Raises:
        DataError: the rate is no share, or there are too few eligible images or candidates.
    """
    check_rate(rate, "open rate")
    foreign = np.asarray(candidates, dtype=np.int64)
    replaceable = np.flatnonzero(eligible)
    count = round(rate * len(eligible))
    for available, what in (
        (len(replaceable), "images may be replaced"),
        (len(foreign), "foreign images are there"),
    ):
        if count > available:
            raise DataError(
                f"an open rate of {rate} of {len(eligible)} images is {count}, but only {available} {what}; "
                "lower it"
            )
    rows = np.sort(rng.permutation(replaceable)[:count]).astype(np.int64)
    return rows, rng.permutation(foreign)[:count]


def _fold(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ").strip()
