"""CIFAR-N: labels that people gave to CIFAR's training images, in files without any image.

The files are CIFAR-10_human and CIFAR-100_human, ending in .pt or .npy. They follow the order of CIFAR's own
batches. Others, called ..._human_ordered.npy, follow another order; the labels' own copy of the truth tells
them apart, and they are refused.

Source: Wei et al. (2022), arXiv 2110.12088. Departures: the original order is checked, not trusted.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from lauter.data.dataset import UNLABELLED, Dataset, Int64s
from lauter.data.sources.columns import shorten
from lauter.data.sources.pickles import read_pickled_npy, read_torch
from lauter.errors import DataError

CLEAN, CLEAN_COARSE = "clean_label", "clean_coarse_label"
_SUFFIXES = (".pt", ".npy")


def join_cifar_n(dataset: Dataset, path: str | Path, column: str) -> Dataset:
    """CIFAR's training images under labels that people gave, with CIFAR's own labels as the truth.

    For CIFAR that was opened from anywhere, such as Parquet files; a folder of CIFAR's own batches takes the
    column's name in ``open_dataset`` itself.

    Args:
        dataset: all training images with their right labels, in the original order.
        path: a file of CIFAR-N, ending in .pt or .npy.
        column: 'worse_label', 'aggre_label', 'random_label1' to 'random_label3', or 'noisy_label'.

    Returns:
        The same images with the human labels as given and the right ones as ``true_labels``.

    Raises:
        DataError: no such file or column, or labels of other images or of another order; the message says in
            how many images the two differ.
    """
    path = Path(path).expanduser()
    human = read_cifar_n(path)
    if column not in human:
        raise DataError(f"{path}: no column {column!r}; its columns: {', '.join(human)}")
    truth = dataset.labels if dataset.true_labels is None else dataset.true_labels
    if missing := int((truth == UNLABELLED).sum()):
        raise DataError(
            f"{dataset.name}: {missing} images have no right label to compare with; open it with the right "
            "labels as label_column"
        )
    coarse = "coarse" in column
    found = {name: labels for name, labels in human.items() if ("coarse" in name) == coarse}
    check_clean(found, CLEAN_COARSE if coarse else CLEAN, truth, dataset.num_classes, path)
    record = {"file": str(path.absolute()), "column": column, "images": dataset.source}
    source = {"human_labels": record, "image_size": dataset.source.get("image_size")}
    return replace(dataset, labels=human[column], true_labels=truth.copy(), source=source)


def find_cifar_n(folder: Path, stem: str) -> Path | None:
    """CIFAR-N's file in a folder, or beside it; the .pt where there are both."""
    places = (folder, folder.absolute().parent)
    return next(
        (
            place / f"{stem}{suffix}"
            for place in places
            for suffix in _SUFFIXES
            if (place / f"{stem}{suffix}").is_file()
        ),
        None,
    )


def read_cifar_n(path: Path) -> dict[str, Int64s]:
    """Labels [N] of a file of CIFAR-N, by column.

    Nothing that the file says is run: it may name arrays of whole numbers and nothing else.

    Raises:
        DataError: the file is missing, damaged, of another kind, or its columns differ in length.
    """
    if path.suffix not in _SUFFIXES:
        raise DataError(f"{path}: expected a file of CIFAR-N, ending in .pt or .npy")
    content = read_torch(path) if path.suffix == ".pt" else read_pickled_npy(path)
    if not isinstance(content, dict) or CLEAN not in content:
        raise DataError(f"{path} is no file of CIFAR-N: expected a dict of labels with {CLEAN!r} among them")
    columns = {
        str(name): check_labels(values, None, f"{path}: {name}")
        for name, values in content.items()
        if "label" in str(name)
    }
    lengths = {name: len(labels) for name, labels in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{path}: columns of different lengths: {lengths}; fetch it again")
    return columns


def check_labels(values: object, num_classes: int | None, title: str) -> Int64s:
    """Whole numbers as labels.

    Args:
        values: an array, tensor or list, [N] or [N, 1].
        num_classes: what they must be below; None where that is not known yet.
        title: for messages.

    Returns:
        [N].

    Raises:
        DataError: another type or shape, or labels out of their range.
    """
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise DataError(f"{title}: expected whole numbers [N] ({error})") from error
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(
            f"{title}: expected whole numbers [N], not {array.dtype} of the shape {list(array.shape)}"
        )
    wrong = (array < 0) | (array >= num_classes) if num_classes is not None else array < 0
    if wrong.any():
        first = int(np.argmax(wrong))
        highest = "" if num_classes is None else f"..{num_classes - 1}"
        raise DataError(
            f"{title}: {int(wrong.sum())} labels are out of their range 0{highest}, the first is "
            f"{array[first]} at place {first}"
        )
    return array.astype(np.int64)


def check_clean(
    columns: Mapping[str, Int64s], clean: str, labels: Int64s, num_classes: int, path: Path
) -> None:
    """Refuse human labels that are not those of these images in this order.

    Args:
        columns: labels [N] of the file, by column.
        clean: the column that repeats the right labels.
        labels: [N] right labels of the images.
        num_classes: what all labels must be below.
        path: the file, for messages.

    Raises:
        DataError: the right labels differ, in number or in value, or a label is out of its range.
    """
    if clean not in columns:
        raise DataError(f"{path}: no {clean!r} to check the order by; its columns: {shorten(tuple(columns))}")
    if len(columns[clean]) != len(labels):
        raise DataError(
            f"{path} has labels for {len(columns[clean]):,} images, and there are {len(labels):,}; "
            "open all of CIFAR's training images"
        )
    if wrong := int((columns[clean] != labels).sum()):
        raise DataError(
            f"{path}: its {clean!r} differs from the images' labels in {wrong:,} of {len(labels):,} images; "
            "expected CIFAR's training images in their original order, and no file called ..._ordered"
        )
    for name, values in columns.items():
        check_labels(values, num_classes, f"{path}: {name}")
