"""Targets of images with several labels: a matrix of present, absent and unknown, made of names."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from lauter.data.sources.columns import shorten
from lauter.data.sources.listing import order_classes
from lauter.errors import DataError

Int8s = NDArray[np.int8]

PRESENT, ABSENT, UNKNOWN = 1, 0, -1
"""What a target says of a class in an image."""

Names = Collection[str] | None
"""The names of an image; None where nothing is known of it."""


def make_targets(
    present: Sequence[Names],
    unknown: Sequence[Collection[str]] | None,
    class_names: Sequence[str] | None,
    where: str,
) -> tuple[Int8s, tuple[str, ...]]:
    """Targets of images, from the names that each of them has.

    Args:
        present: [N] names of the classes in each image; None makes all of its targets unknown.
        unknown: [N] names of classes that may or may not count in each image, or None; ``present`` wins.
        class_names: the classes and their order; where None, those that occur, in order.
        where: the source, for messages.

    Returns:
        int8 [N, K] and the K class names.

    Raises:
        DataError: a name that is no class; names it and the classes.
    """
    unsure = [()] * len(present) if unknown is None else unknown
    found = {name for names in present if names is not None for name in names}
    found |= {name for names in unsure for name in names}
    classes = order_classes(found) if class_names is None else tuple(class_names)
    column = {name: place for place, name in enumerate(classes)}
    if strange := sorted(found - set(column)):
        raise DataError(
            f"{where}: {len(strange)} names are no class: {shorten(strange, 5)}; "
            f"expected some of the {len(classes)} classes {shorten(classes)}"
        )
    targets = np.full((len(present), len(classes)), ABSENT, dtype=np.int8)
    for row, (names, doubtful) in enumerate(zip(present, unsure, strict=True)):
        if names is None:
            targets[row] = UNKNOWN
            continue
        targets[row, [column[name] for name in doubtful]] = UNKNOWN
        targets[row, [column[name] for name in names]] = PRESENT
    return targets, classes
