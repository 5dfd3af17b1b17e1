"""What a source finds before any pixel is decoded: where each image is, its id and its labels."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lauter.data.dataset import ImageFault, Int64s

SPLIT_NAMES = (
    "train",
    "training",
    "validation",
    "valid",
    "val",
    "dev",
    "holdout",
    "test",
    "testing",
    "eval",
)
"""Names that mean a part of a data set, in the order in which splits are listed."""


class Cells(Protocol):
    """Encoded images by row; safe to read from several threads."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> bytes | Path: ...


@dataclass(frozen=True, eq=False)
class Listing:
    """Labelled images that have not been looked at.

    Attributes:
        name: short name of the data set.
        split: the split that was opened; None where the source has none.
        cells: encoded images.
        rows: [N] row in ``cells`` of each image.
        ids: [N] ids.
        labels: [N] labels as given, -1 where there is none.
        class_names: K names.
        true_labels: [N] or None; -1 for images of no class.
        faults: what the source left out by itself.
    """

    name: str
    split: str | None
    cells: Cells
    rows: Int64s
    ids: NDArray[np.str_]
    labels: Int64s
    class_names: tuple[str, ...]
    true_labels: Int64s | None = None
    faults: tuple[ImageFault, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: Int64s) -> "Listing":
        """The images at ``index``, in that order."""
        truth = None if self.true_labels is None else self.true_labels[index]
        return replace(
            self,
            rows=self.rows[index],
            ids=self.ids[index],
            labels=self.labels[index],
            true_labels=truth,
        )


def order_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct class names in order: by number where all are whole numbers, else alphabetically.

    >>> order_classes(["10", "9"])
    ('9', '10')
    >>> order_classes(["b", "10", "9"])
    ('10', '9', 'b')
    """
    distinct = sorted(set(names))
    if all(is_whole_number(name) for name in distinct):
        distinct.sort(key=int)
    return tuple(distinct)


def is_whole_number(text: str) -> bool:
    """Whether the text is an integer in ASCII digits, such as '7' or '-1'."""
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit()


def order_splits(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct split names: the usual ones first, training before testing, then the others by name.

    >>> order_splits(["extra", "test", "train"])
    ('train', 'test', 'extra')
    """
    rank = {name: position for position, name in enumerate(SPLIT_NAMES)}
    return tuple(sorted(set(names), key=lambda name: (rank.get(name.casefold(), len(rank)), name)))
