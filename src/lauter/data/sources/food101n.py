"""Food-101N, and Food-101, which is its test set: images/CLASS/..., and lists of images in meta/.

Food-101N's own lists begin with a line that names the column. For some of its images people have said whether
the class is right (1) or not (0); which one would be right was not asked.

Source: Lee, He, Zhang and Yang (2018), arXiv 1711.07131; Bossard, Guillaumin and Van Gool, "Food-101", ECCV
2014. Departures: 'train' leaves the images of verified_val.tsv out, so that the split 'validation' is held
out; the authors' list has them in.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from lauter.data.dataset import OPEN, ImageFault, Int64s
from lauter.data.sources.cells import ColumnCells
from lauter.data.sources.key_lists import match_labels, read_keys, read_names, read_values
from lauter.data.sources.listing import Listing, order_splits
from lauter.data.sources.table import Columns
from lauter.errors import DataError

TRUTH_COLUMN = "verification_label"
_CLASSES = "classes.txt"
_FOOD101N = {
    "train": "imagelist.tsv",
    "validation": "verified_val.tsv",
    "verified_train": "verified_train.tsv",
}
_FOOD101 = {"train": "train.txt", "test": "test.txt"}
_HEADER = "class_name"
_KEY_HEADER = "class_name/key"


def is_food101n(folder: Path) -> bool:
    """Whether a folder is Food-101N: it has one of its lists in meta/."""
    return _has_lists(folder, _FOOD101N)


def is_food101(folder: Path) -> bool:
    """Whether a folder is Food-101, or laid out like it: class names and lists in meta/, and images/."""
    return (
        _has_lists(folder, _FOOD101)
        and (folder / "meta" / _CLASSES).is_file()
        and (folder / "images").is_dir()
    )


def list_food101n_splits(folder: Path) -> tuple[str, ...]:
    """Splits of Food-101N whose list is there."""
    return _list_splits(folder, _FOOD101N)


def list_food101_splits(folder: Path) -> tuple[str, ...]:
    """Splits of Food-101 whose list is there."""
    return _list_splits(folder, _FOOD101)


def list_food101n(folder: Path, split: str | None, columns: Columns) -> Listing:
    """List a split of Food-101N.

    Args:
        folder: the folder that holds images/ and meta/.
        split: 'train' (the default) has all images but those of 'validation'. 'validation' and
            'verified_train' have the images that people looked at, the latter being a part of 'train'.
        columns: ``truth`` may be 'verification_label' in the last two. The truth is then the given label
            where it is right and "of no class" where it is wrong, because the right one is not known: what is
            found out about wrong labels holds, but open and closed noise cannot be told apart.

    Returns:
        The listing, in the order of the split's list.

    Raises:
        DataError: no such split or column, a file is missing, or a line is not as expected; names file and
            line.
    """
    split = split or "train"
    meta, listed = _find_list(folder, split, _FOOD101N)
    names = read_names(meta / _CLASSES, _HEADER)
    if columns.truth and (split == "train" or columns.truth != TRUTH_COLUMN):
        raise DataError(
            f"{folder}: split {split!r} has no column {columns.truth!r} (truth_column); the only one is "
            f"{TRUTH_COLUMN!r}, in the splits validation and verified_train"
        )
    keys, faults = read_keys(listed, _KEY_HEADER)
    true_labels = None
    if split == "train":
        held = read_values(meta / _FOOD101N["validation"], 2, _KEY_HEADER)
        keys = {key: line for key, line in keys.items() if key not in held}
    labels = _read_labels(keys, names, listed)
    if columns.truth:
        verified = match_labels(keys, read_values(listed, 2, _KEY_HEADER), listed, listed)
        true_labels = np.where(verified == 1, labels, OPEN)
    return _make_listing(folder, split, list(keys), labels, names, true_labels, faults)


def list_food101(folder: Path, split: str | None, columns: Columns) -> Listing:
    """List a split of Food-101.

    Args:
        folder: the folder that holds images/ and meta/.
        split: 'train' (the default) or 'test'.
        columns: none is taken.

    Returns:
        The listing, in the order of the split's list.

    Raises:
        DataError: no such split, a file is missing, or a line is not as expected; names file and line.
    """
    split = split or "train"
    meta, listed = _find_list(folder, split, _FOOD101)
    names = read_names(meta / _CLASSES)
    keys, faults = read_keys(listed)
    labels = _read_labels(keys, names, listed)
    return _make_listing(folder, split, [f"{key}.jpg" for key in keys], labels, names, None, faults)


def _has_lists(folder: Path, lists: Mapping[str, str]) -> bool:
    return any((folder / "meta" / name).is_file() for name in lists.values())


def _list_splits(folder: Path, lists: Mapping[str, str]) -> tuple[str, ...]:
    return order_splits(split for split, name in lists.items() if (folder / "meta" / name).is_file())


def _find_list(folder: Path, split: str, lists: Mapping[str, str]) -> tuple[Path, Path]:
    if split not in lists:
        raise DataError(f"{folder}: no split {split!r}; its splits: {', '.join(order_splits(lists))}")
    return folder / "meta", folder / "meta" / lists[split]


def _read_labels(keys: Mapping[str, int], names: tuple[str, ...], listed: Path) -> Int64s:
    """Labels [N] of images called CLASS/NAME."""
    numbers = {name: label for label, name in enumerate(names)}
    labels = np.empty(len(keys), dtype=np.int64)
    for row, (key, line) in enumerate(keys.items()):
        name, slash, _ = key.partition("/")
        if not slash or name not in numbers:
            raise DataError(
                f"{listed}, line {line}: expected CLASS/IMAGE with one of the {len(names)} classes of "
                f"{_CLASSES}, not {key!r}"
            )
        labels[row] = numbers[name]
    return labels


def _make_listing(
    folder: Path,
    split: str,
    images: list[str],
    labels: Int64s,
    names: tuple[str, ...],
    true_labels: Int64s | None,
    faults: tuple[ImageFault, ...],
) -> Listing:
    ids = [f"images/{image}" for image in images]
    return Listing(
        name=folder.resolve().name,
        split=split,
        cells=ColumnCells(pa.array(ids, pa.string()), folder, str(folder)),
        rows=np.arange(len(ids), dtype=np.int64),
        ids=np.array(ids, dtype=np.str_),
        labels=labels,
        class_names=names,
        true_labels=true_labels,
        faults=faults,
    )
