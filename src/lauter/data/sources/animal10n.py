"""ANIMAL-10N in its two forms: image files whose names begin with the label, and binary batches.

Ten classes in five pairs that are easily confused. The class names are those of the data set's own readme;
some who looked at the images say that cheetah and jaguar (4 and 5) are exchanged in it. The numbers, and so
all training and scores, do not depend on that.

Source: Song, Kim and Lee, "SELFIE: Refurbishing Unclean Samples for Robust Deep Learning", ICML 2019, and the
description of the binary form in the authors' repository. Departures: none.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lauter.data.dataset import ImageFault
from lauter.data.sources.cifar_n import check_labels
from lauter.data.sources.folder import IMAGE_SUFFIXES
from lauter.data.sources.listing import Listing
from lauter.data.sources.pixels import PixelCells
from lauter.data.sources.table import Columns
from lauter.errors import DataError

CLASS_NAMES = (
    "cat",
    "lynx",
    "wolf",
    "coyote",
    "cheetah",
    "jaguar",
    "chimpanzee",
    "orangutan",
    "hamster",
    "guinea pig",
)
_FOLDERS = {"train": "training", "test": "testing"}
_FILE_NAME = re.compile(r"(?P<label>\d+)_[\w.-]+", re.ASCII)
_BATCH_NAME = re.compile(r"data_batch_(?P<number>\d+)\.bin", re.ASCII)
_FIRST_BATCH, _TEST_BATCH = "data_batch_1.bin", "test_batch.bin"
_RECORD = np.dtype([("id", ">u4"), ("label", ">u4"), ("pixels", np.uint8, (3, 64, 64))])


def is_animal10n(folder: Path) -> bool:
    """Whether a folder holds training/ and testing/, the first with images called LABEL_... alone."""
    if not all((folder / name).is_dir() for name in _FOLDERS.values()):
        return False
    entries = list(_visible(folder / _FOLDERS["train"]))
    named = any(_is_image(entry) and _FILE_NAME.fullmatch(entry.name) for entry in entries)
    return named and not any(entry.is_dir() for entry in entries)


def is_animal10n_binary(folder: Path) -> bool:
    """Whether a folder holds data_batch_1.bin and test_batch.bin, made of whole records of 64 x 64 pixels.

    CIFAR's binary batches have the same names, but other records.
    """
    batches = [folder / name for name in (_FIRST_BATCH, _TEST_BATCH)]
    return all(path.is_file() and _is_whole(path) for path in batches)


def list_splits(folder: Path) -> tuple[str, ...]:
    """Splits of either form."""
    return tuple(_FOLDERS)


def list_animal10n(folder: Path, split: str | None, columns: Columns) -> Listing:
    """List a split of ANIMAL-10N's image files, sorted by name.

    Args:
        folder: the folder that holds training/ and testing/.
        split: 'train' (the default) or 'test'.
        columns: none is taken.

    Returns:
        The listing; files that are no images, and folders, are faults of it.

    Raises:
        DataError: no such split, or an image whose name begins with no label of 0..9; names it.
    """
    top = folder / _FOLDERS[_check_split(folder, split)]
    paths, labels, faults = [], [], []
    for entry in sorted(_visible(top), key=lambda entry: entry.name):
        path = top / entry.name
        if not _is_image(entry):
            id_ = os.fsencode(f"{top.name}/{entry.name}").decode("utf-8", "backslashreplace")
            faults.append(ImageFault(id_, "not-an-image", "is a folder, or is not named like an image", True))
            continue
        match = _FILE_NAME.fullmatch(entry.name)
        if match is None or int(match["label"]) >= len(CLASS_NAMES):
            raise DataError(
                f"{str(path)!r}: the name begins with no label; expected 0_ to {len(CLASS_NAMES) - 1}_ and "
                "letters, digits or signs of . _ - behind it; rename or remove the file"
            )
        paths.append(path)
        labels.append(int(match["label"]))
    return Listing(
        name=folder.resolve().name,
        split=split or "train",
        cells=paths,
        rows=np.arange(len(paths), dtype=np.int64),
        ids=np.array([f"{top.name}/{path.name}" for path in paths], dtype=np.str_),
        labels=np.array(labels, dtype=np.int64),
        class_names=CLASS_NAMES,
        faults=tuple(faults),
    )


def list_animal10n_binary(folder: Path, split: str | None, columns: Columns) -> Listing:
    """List a split of ANIMAL-10N's binary batches.

    A record is an id and a label of four bytes each, the highest first, and 64 x 64 pixels by channel.

    Args:
        folder: the folder that holds data_batch_1.bin and so on, and test_batch.bin.
        split: 'train' (the default) or 'test'.
        columns: none is taken.

    Returns:
        The listing, in the batches' order; ids are the batch and the place in it.

    Raises:
        DataError: no such split, a batch that is missing or cut off, or a label out of 0..9.
    """
    split = _check_split(folder, split)
    batches = _find_batches(folder) if split == "train" else [folder / _TEST_BATCH]
    ids, labels, pixels = [], [], []
    for path in batches:
        if not _is_whole(path):
            raise DataError(
                f"{path}: {path.stat().st_size:,} bytes are no whole records of {_RECORD.itemsize:,} bytes "
                "(id, label, 3 x 64 x 64 pixels); fetch it again"
            )
        records = np.fromfile(path, dtype=_RECORD)
        labels.append(check_labels(records["label"], len(CLASS_NAMES), f"{path}: labels of ANIMAL-10N"))
        pixels.append(records["pixels"])
        ids += [f"{path.stem}/{row:05d}" for row in range(len(records))]
    return Listing(
        name=folder.resolve().name,
        split=split,
        cells=PixelCells(np.concatenate(pixels)),
        rows=np.arange(len(ids), dtype=np.int64),
        ids=np.array(ids, dtype=np.str_),
        labels=np.concatenate(labels),
        class_names=CLASS_NAMES,
    )


def _check_split(folder: Path, split: str | None) -> str:
    split = split or "train"
    if split not in _FOLDERS:
        raise DataError(f"{folder}: no split {split!r}; its splits: {', '.join(_FOLDERS)}")
    return split


def _find_batches(folder: Path) -> list[Path]:
    """Training batches in the order of their numbers, which must have no gap."""
    matches = (_BATCH_NAME.fullmatch(path.name) for path in folder.iterdir())
    last = max(int(match["number"]) for match in matches if match)
    batches = [folder / f"data_batch_{number}.bin" for number in range(1, last + 1)]
    if missing := [path.name for path in batches if not path.is_file()]:
        raise DataError(f"{folder}: {', '.join(missing)} is missing, but data_batch_{last}.bin is here")
    return batches


def _is_whole(path: Path) -> bool:
    size = path.stat().st_size
    return size > 0 and size % _RECORD.itemsize == 0


def _visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error}); check that it may be read") from error


def _is_image(entry: os.DirEntry[str]) -> bool:
    return not entry.is_dir() and os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES
