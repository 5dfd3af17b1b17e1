"""CIFAR-10 and CIFAR-100 as they are distributed for Python: folders of pickled batches.

The folder is opened like a table. Its columns are CIFAR's own labels (``label`` for CIFAR-10, ``fine_label``
and ``coarse_label`` for CIFAR-100) and, for the training images, those of CIFAR-N where its file is there.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. Departures: none.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lauter.data.dataset import Int64s, Pixels
from lauter.data.sources import cifar_n
from lauter.data.sources.columns import find_column, shorten
from lauter.data.sources.listing import Listing
from lauter.data.sources.pickles import read_pickle
from lauter.data.sources.pixels import PixelCells
from lauter.data.sources.table import Columns
from lauter.errors import DataError

SPLITS = ("train", "test")
_SIDE = 32
_COARSE = "coarse"


@dataclass(frozen=True)
class _Version:
    """One of the two sets: its files, and where its labels and their names stand in them.

    Attributes:
        title: for messages.
        meta: file of the class names.
        batches: files of each split.
        labels: by column, the key in a batch and the key of its class names in ``meta``.
        human: CIFAR-N's file for it, without ending.
    """

    title: str
    meta: str
    batches: dict[str, tuple[str, ...]]
    labels: dict[str, tuple[str, str]]
    human: str


_VERSIONS = (
    _Version(
        title="CIFAR-10",
        meta="batches.meta",
        batches={"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)},
        labels={"label": ("labels", "label_names")},
        human="CIFAR-10_human",
    ),
    _Version(
        title="CIFAR-100",
        meta="meta",
        batches={"train": ("train",), "test": ("test",)},
        labels={
            "fine_label": ("fine_labels", "fine_label_names"),
            "coarse_label": ("coarse_labels", "coarse_label_names"),
        },
        human="CIFAR-100_human",
    ),
)


def is_cifar(folder: Path) -> bool:
    """Whether a folder is cifar-10-batches-py or cifar-100-python, under whatever name."""
    return _find_version(folder) is not None


def list_splits(folder: Path) -> tuple[str, ...]:
    """Splits of a folder of batches: those of which any file is there."""
    version = _find_version(folder) or _VERSIONS[0]
    return tuple(
        split for split in SPLITS if any((folder / name).is_file() for name in version.batches[split])
    )


def list_cifar(folder: Path, split: str | None, columns: Columns) -> Listing:
    """List a split of CIFAR in its original order; ids are the split and the place in it.

    Args:
        folder: the folder of the batches.
        split: 'train' (the default) or 'test'.
        columns: the given labels are those of the column ``label``, by default CIFAR's own (fine) ones, and
            the truth is that of the column ``truth``. CIFAR-N's columns are called as in its file
            ('worse_label', 'aggre_label', 'random_label1', ... or 'noisy_label').

    Returns:
        The listing.

    Raises:
        DataError: no such split or column, batches that are missing, damaged or no batches, or labels of
            CIFAR-N that are those of other images.
    """
    version = _find_version(folder)
    if version is None:
        raise DataError(f"{folder}: expected the batches of CIFAR-10 or CIFAR-100 for Python")
    split = split or SPLITS[0]
    if split not in SPLITS:
        raise DataError(f"{folder}: no split {split!r}; its splits: {', '.join(SPLITS)}")
    names = _read_names(folder, version)
    pixels, known = _read_split(folder, version, split, names)
    label = columns.label or next(iter(version.labels))
    wanted = [(label, "label_column"), *([(columns.truth, "truth_column")] if columns.truth else [])]
    if split == "train" and any(column not in known for column, _ in wanted):
        kinds = {_kind(column) for column, _ in wanted}
        known = known | _read_human(folder, version, known, names, kinds)
    for column, option in wanted:
        find_column(tuple(known), column, (), option, f"{folder}, split {split!r}")
    if columns.truth and _kind(columns.truth) != _kind(label):
        raise DataError(
            f"{folder}: label_column={label!r} and truth_column={columns.truth!r} have different classes; "
            "name two fine columns or two coarse ones"
        )
    count = len(pixels)
    return Listing(
        name=folder.resolve().name,
        split=split,
        cells=PixelCells(pixels),
        rows=np.arange(count, dtype=np.int64),
        ids=np.array([f"{split}/{row:05d}" for row in range(count)], dtype=np.str_),
        labels=known[label],
        class_names=names[_kind(label)],
        true_labels=known[columns.truth] if columns.truth else None,
    )


def _kind(column: str) -> str:
    """Which classes a column is of: coarse ones, or '' for the others."""
    return _COARSE if _COARSE in column else ""


def _find_version(folder: Path) -> _Version | None:
    return next(
        (
            version
            for version in _VERSIONS
            if (folder / version.meta).is_file()
            and any((folder / name).is_file() for files in version.batches.values() for name in files)
        ),
        None,
    )


def _read_names(folder: Path, version: _Version) -> dict[str, tuple[str, ...]]:
    """Class names by kind of column."""
    path = folder / version.meta
    content = read_pickle(path)
    names = {}
    for column, (_, key) in version.labels.items():
        found = content.get(key) if isinstance(content, dict) else None
        if not isinstance(found, list) or len(found) < 2 or not all(isinstance(name, str) for name in found):
            raise DataError(f"{path}: expected class names under {key!r}; fetch {version.title} again")
        names[_kind(column)] = tuple(found)
    return names


def _read_split(
    folder: Path, version: _Version, split: str, names: dict[str, tuple[str, ...]]
) -> tuple[Pixels, dict[str, Int64s]]:
    """Pixels [N, 3, 32, 32] of a split, and its labels by column."""
    parts = [_read_batch(folder / file, version, names) for file in version.batches[split]]
    pixels = np.concatenate([part for part, _ in parts])
    labels = {column: np.concatenate([found[column] for _, found in parts]) for column in version.labels}
    return pixels, labels


def _read_batch(
    path: Path, version: _Version, names: dict[str, tuple[str, ...]]
) -> tuple[Pixels, dict[str, Int64s]]:
    content = read_pickle(path)
    keys = [key for key, _ in version.labels.values()]
    if not isinstance(content, dict) or not {"data", *keys} <= content.keys():
        raise DataError(
            f"{path} is no batch of {version.title}: expected a dict with data, {', '.join(keys)}"
        )
    data = content["data"]
    values = 3 * _SIDE * _SIDE
    if (
        not isinstance(data, np.ndarray)
        or data.dtype != np.uint8
        or data.ndim != 2
        or data.shape[1] != values
    ):
        raise DataError(f"{path}: data is no uint8 array [N, {values}]; fetch {version.title} again")
    labels = {}
    for column, (key, _) in version.labels.items():
        title = f"{path}: {key}"
        labels[column] = cifar_n.check_labels(content[key], len(names[_kind(column)]), title)
        if len(labels[column]) != len(data):
            raise DataError(f"{title} has {len(labels[column])} entries for {len(data)} images")
    return data.reshape(-1, 3, _SIDE, _SIDE), labels


def _read_human(
    folder: Path,
    version: _Version,
    own: dict[str, Int64s],
    names: dict[str, tuple[str, ...]],
    kinds: set[str],
) -> dict[str, Int64s]:
    """CIFAR-N's columns of some kinds, each kind checked against CIFAR's own training labels."""
    path = cifar_n.find_cifar_n(folder, version.human)
    if path is None:
        raise DataError(
            f"{folder}: its columns are {shorten(tuple(own))}; for labels of CIFAR-N put {version.human}.pt "
            "into this folder or beside it"
        )
    human = cifar_n.read_cifar_n(path)
    checked: dict[str, Int64s] = {}
    for column, labels in own.items():
        if (kind := _kind(column)) in kinds:
            found = {name: values for name, values in human.items() if _kind(name) == kind}
            clean = cifar_n.CLEAN_COARSE if kind else cifar_n.CLEAN
            cifar_n.check_clean(found, clean, labels, len(names[kind]), path)
            checked |= found
    return checked
