"""Published noisy data sets as their authors lay them out: told by their files, listed by their rules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lauter.data.dataset import OPEN, UNLABELLED
from lauter.data.sources import animal10n, cifar, clothing1m, food101n
from lauter.data.sources.columns import shorten
from lauter.data.sources.listing import Listing
from lauter.data.sources.table import Columns
from lauter.errors import DataError


@dataclass(frozen=True)
class Layout:
    """How a data set lies on the disk.

    Attributes:
        is_here: whether a folder has this layout, by a few of its files.
        list_splits: splits of such a folder.
        list_images: the listing of a split (train where None) with the columns that the caller named.
        columns: which columns a caller may name: 'label', 'truth', 'image' or 'id'.
    """

    is_here: Callable[[Path], bool]
    list_splits: Callable[[Path], tuple[str, ...]]
    list_images: Callable[[Path, str | None, Columns], Listing]
    columns: tuple[str, ...] = ()


LAYOUTS: dict[str, Layout] = {
    "CIFAR": Layout(cifar.is_cifar, cifar.list_splits, cifar.list_cifar, ("label", "truth")),
    "Clothing1M": Layout(clothing1m.is_clothing1m, clothing1m.list_splits, clothing1m.list_clothing1m),
    "Food-101N": Layout(
        food101n.is_food101n, food101n.list_food101n_splits, food101n.list_food101n, ("truth",)
    ),
    "Food-101": Layout(food101n.is_food101, food101n.list_food101_splits, food101n.list_food101),
    "ANIMAL-10N": Layout(animal10n.is_animal10n, animal10n.list_splits, animal10n.list_animal10n),
    "ANIMAL-10N (binary)": Layout(
        animal10n.is_animal10n_binary, animal10n.list_splits, animal10n.list_animal10n_binary
    ),
}
"""By the name that messages give them, in the order in which they are looked for."""


def find_layout(folder: Path) -> str | None:
    """Name of the published data set that a folder holds; None for any other folder."""
    return next((name for name, layout in LAYOUTS.items() if layout.is_here(folder)), None)


def list_named(
    name: str, folder: Path, split: str | None, columns: Columns, class_names: Sequence[str] | None
) -> Listing:
    """List a split of a published data set.

    Args:
        name: of the layout, from :func:`find_layout`.
        folder: where it lies.
        split: which part; train where None.
        columns: columns that the caller named, none that the layout does not take.
        class_names: the classes and their order, where the caller wants another than the data set's.

    Raises:
        DataError: files, lines or labels are not as the layout has them, or a labelled image is of none of
            ``class_names``.
    """
    listing = LAYOUTS[name].list_images(folder, split, columns)
    return listing if class_names is None else _arrange_classes(listing, tuple(class_names), str(folder))


def _arrange_classes(listing: Listing, class_names: tuple[str, ...], where: str) -> Listing:
    """The listing under another order of classes; a true class that is not among them is open."""
    own = listing.class_names
    used = [own[label] for label in np.unique(listing.labels).tolist() if label != UNLABELLED]
    if strange := [name for name in used if name not in class_names]:
        raise DataError(
            f"{where}: {len(strange)} classes that are not in class_names: {shorten(strange, 5)}; "
            f"expected some of the {len(class_names)} classes {shorten(class_names)}"
        )
    position = {name: place for place, name in enumerate(class_names)}
    # The last entry is met by -1: unlabelled stays unlabelled, and open stays open.
    lookup = np.array([*(position.get(name, OPEN) for name in own), OPEN], dtype=np.int64)
    truth = None if listing.true_labels is None else lookup[listing.true_labels]
    return replace(listing, labels=lookup[listing.labels], class_names=class_names, true_labels=truth)
