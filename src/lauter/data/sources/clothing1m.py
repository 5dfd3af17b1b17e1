"""Clothing1M as it is distributed: images, lists of images for each split, and two files of labels.

The lists stand in the folder itself or in ``annotations/`` inside it. A line of them is a path relative to
the folder, such as ``images/3/25/....jpg``; the label files say a path and a number.

Source: Xiao, Xia, Yang, Huang and Wang, "Learning from Massive Noisy Labeled Data for Image Classification",
CVPR 2015. Departures: the split 'twice_labelled' is ours.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from lauter.data.sources.cells import ColumnCells
from lauter.data.sources.key_lists import match_labels, read_keys, read_names, read_values
from lauter.data.sources.listing import Listing, order_splits
from lauter.data.sources.table import Columns
from lauter.errors import DataError

TWICE = "twice_labelled"
_NAMES = "category_names_eng.txt"
_NOISY, _CLEAN = "noisy_label_kv.txt", "clean_label_kv.txt"
_LISTS = {
    "train": "noisy_train_key_list.txt",
    "validation": "clean_val_key_list.txt",
    "test": "clean_test_key_list.txt",
    "clean_train": "clean_train_key_list.txt",
    TWICE: "clean_train_key_list.txt",
}


def is_clothing1m(folder: Path) -> bool:
    """Whether a folder is Clothing1M: it holds one of its lists."""
    return _find_lists(folder) is not None


def list_splits(folder: Path) -> tuple[str, ...]:
    """Splits whose list is there."""
    place = _find_lists(folder) or folder
    return order_splits(split for split, name in _LISTS.items() if (place / name).is_file())


def list_clothing1m(folder: Path, split: str | None, columns: Columns) -> Listing:
    """List a split of Clothing1M.

    Args:
        folder: the folder that holds images/.
        split: 'train' (the default) has labels from the images' surroundings; 'clean_train', 'validation'
            and 'test' have labels by hand. 'twice_labelled' are the images of clean_train that have both: the
            noisy labels as given, those by hand as the truth.
        columns: none is taken.

    Returns:
        The listing, in the order of the split's list. Images that it names more than once are faults.

    Raises:
        DataError: no such split, a file is missing, a line is not as expected, or a listed image has no
            label; names file and line.
    """
    split = split or "train"
    if split not in _LISTS:
        raise DataError(f"{folder}: no split {split!r}; its splits: {', '.join(list_splits(folder))}")
    place = _find_lists(folder) or folder
    listed, noisy, clean = place / _LISTS[split], place / _NOISY, place / _CLEAN
    names = read_names(place / _NAMES)
    keys, faults = read_keys(listed)
    true_labels = None
    if split == TWICE:
        given = read_values(noisy, len(names))
        keys = {key: line for key, line in keys.items() if key in given}
        labels = match_labels(keys, given, listed, noisy)
        true_labels = match_labels(keys, read_values(clean, len(names)), listed, clean)
    else:
        source = noisy if split == "train" else clean
        labels = match_labels(keys, read_values(source, len(names)), listed, source)
    ids = list(keys)
    return Listing(
        name=folder.resolve().name,
        split=split,
        cells=ColumnCells(pa.array(ids, pa.string()), folder, str(listed)),
        rows=np.arange(len(ids), dtype=np.int64),
        ids=np.array(ids, dtype=np.str_),
        labels=labels,
        class_names=names,
        true_labels=true_labels,
        faults=faults,
    )


def _find_lists(folder: Path) -> Path | None:
    marks = (_NOISY, _CLEAN, *_LISTS.values())
    return next(
        (
            place
            for place in (folder, folder / "annotations")
            if any((place / mark).is_file() for mark in marks)
        ),
        None,
    )
