"""The data sets of the audit's measurements: images under labels of which it is known which are wrong."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq

from lauter.bench.noisy_data import Open, open_ncifar
from lauter.data import Dataset, corrupt, open_dataset
from lauter.data.dataset import Images, concatenate
from lauter.data.multilabel import MultiLabelDataset, open_multilabel
from lauter.data.sources.digits import SPLITS as DIGIT_SPLITS
from lauter.data.sources.digits import open_digits
from lauter.data.sources.table import find_shards
from lauter.data.whole import WholeImages
from lauter.errors import ConfigError, DataError
from lauter.noise import NoiseRecipe
from lauter.noise.recipes import ClosedKind

SIZE = 10_000
"""Images of a CIFAR set."""
HEAD, HARD_HEAD = 2500, 2900
"""Images of the largest class of the nCIFAR recipes; the hard one's tail is steeper, its head larger."""
PHOTO_SIDE, PHOTO_CLASS, PHOTO_NOISE = 64, 7, 0.2
"""Photos: side in pixels for the features; images a class must have; share of labels made wrong."""

Folder = Literal["cifar10", "cifar100", "photos"]


@dataclass(frozen=True)
class Folders:
    """Where data sets lie on this machine; None for those that are not at hand.

    Attributes:
        cifar10: CIFAR-10 as Parquet, with CIFAR-10N's labels as columns.
        cifar100: CIFAR-100, with CIFAR-100N's.
        photos: pictures with boxes of objects: columns id, image, objects (bbox, category), and labels.
    """

    cifar10: Path | None = None
    cifar100: Path | None = None
    photos: Path | None = None

    def require(self, name: Folder) -> Path:
        """A folder that a data set needs.

        Raises:
            ConfigError: it was not given; the message names the flag.
        """
        folder: Path | None = getattr(self, name)
        if folder is None:
            raise ConfigError(f"this data set needs --{name}, a folder of Parquet files")
        return folder


@dataclass(frozen=True)
class AuditData:
    """One data set of the measurement.

    Attributes:
        open: its images, all of them labelled, with the truth beside (for the evaluation alone).
        needs: which folders it is made of.
        features: simclr: of a network that is trained on the images without labels; pixels: the grey picture
            itself, for pictures as small as digits.
        splits: opens the same pictures as they lie on the disk, by split, for what is found in pictures
            rather than in labels; None where that is not measured.
    """

    open: Callable[[Folders, int], Dataset]
    needs: tuple[Folder, ...] = ()
    features: Literal["simclr", "pixels"] = "simclr"
    splits: Callable[[Folders], dict[str, Dataset]] | None = None


def open_human_labels(folder: Folder, column: str) -> Callable[[Folders, int], Dataset]:
    """10,000 images of CIFAR-10 or CIFAR-100 under labels that people gave (CIFAR-N).

    A seed draws the same images for every column, so that they differ in labels alone, and share features.
    """

    def open_labels(folders: Folders, seed: int) -> Dataset:
        place = folders.require(folder)
        drawn = open_dataset(place, split="train", label_column="label", size=SIZE, seed=seed)
        people = open_dataset(place, split="train", label_column=column, truth_column="label")
        return people.subset(np.flatnonzero(np.isin(people.ids, drawn.ids)))

    return open_labels


def open_true_labels(folders: Folders, seed: int) -> Dataset:
    """The images of ``cifar10n-worst`` under their true labels: nothing is to be found there."""
    people = open_human_labels("cifar10", "label_worst")(folders, seed)
    named = dataclasses.replace(people, name=f"{people.name}-clean")
    return named.with_labels(np.asarray(people.true_labels))


def open_recipe(open_noisy: Open) -> Callable[[Folders, int], Dataset]:
    """The training images of a set of the noisy measurements."""

    def open_train(folders: Folders, seed: int) -> Dataset:
        return open_noisy(folders.require("cifar10"), folders.require("cifar100"), seed).train

    return open_train


def open_corrupted_digits(recipe: NoiseRecipe) -> Callable[[Folders, int], Dataset]:
    """The 1,797 embedded digits, 8 x 8 pixels, corrupted by a recipe; no folder is needed.

    Open noise is made of digits too: 8 and 9 are then no classes, and stand in for images labelled 0 to 7.
    """

    def open_noisy(_: Folders, seed: int) -> Dataset:
        clean = concatenate(*(open_digits(split, image_size=8) for split in DIGIT_SPLITS))
        foreign = None
        if recipe.open_rate > 0:
            names = clean.class_names
            others = clean.subset(clean.labels >= 8)
            foreign = dataclasses.replace(others, labels=others.labels - 8, class_names=names[8:])
            own = clean.subset(clean.labels < 8)
            clean = dataclasses.replace(own, class_names=names[:8])
        return corrupt(clean, recipe, seed=seed, open_source=foreign)

    return open_noisy


def open_photos(folders: Folders, seed: int) -> Dataset:
    """The photos' labels: of each the class of its largest object, one label of five made wrong.

    The largest object is the one with the largest box. Classes that fewer than ``PHOTO_CLASS`` photos share
    are left out with their photos: a handful of images says nothing of a class.

    Args:
        folders: with the photos, of all their splits.
        seed: draws which labels are wrong, and to which other class they move.

    Returns:
        The photos squeezed to ``PHOTO_SIDE``, in memory.

    Raises:
        DataError: fewer than two classes are shared by enough photos, or the columns are not there.
    """
    folder = folders.require("photos")
    parts = []
    for split, shards in find_shards(folder).items():
        opened = open_multilabel(folder, split=split, image_size=PHOTO_SIDE)
        parts.append(_label_by_largest_object(opened, shards))
    if not parts:
        raise DataError(f"{folder}: expected a folder of Parquet shards called SPLIT-00000-of-0000K.parquet")
    photos = parts[0]
    for part in parts[1:]:
        photos = concatenate(photos, part)
    counts = np.bincount(photos.labels[photos.labelled], minlength=photos.num_classes)
    shared = np.flatnonzero(counts >= PHOTO_CLASS)
    if len(shared) < 2:
        raise DataError(f"{folder}: {len(shared)} classes have {PHOTO_CLASS} photos or more; 2 are needed")
    rank = np.full(photos.num_classes + 1, -1)  # the last one stands for no label
    rank[shared] = np.arange(len(shared))
    labels = rank[photos.labels]
    names = tuple(photos.class_names[label] for label in shared)
    kept = dataclasses.replace(photos, labels=labels, true_labels=labels, class_names=names)
    recipe = NoiseRecipe("photos", closed_kind="symmetric", closed_rate=PHOTO_NOISE)
    return corrupt(kept.subset(labels >= 0), recipe, seed=seed)


def _label_by_largest_object(photos: MultiLabelDataset, shards: list[Path]) -> Dataset:
    """Photos under the class of their largest object, which is their truth; unlabelled without an object."""
    largest: dict[str, int] = {}
    for shard in shards:
        columns = ["id", "objects"]
        if absent := set(columns) - set(pq.read_schema(shard).names):
            raise DataError(f"{shard}: no column {absent.pop()}; expected id and objects (bbox, category)")
        for row in pq.read_table(shard, columns=columns).to_pylist():
            found = zip(row["objects"]["bbox"], row["objects"]["category"], strict=True)
            areas = [(box[2] * box[3], category) for box, category in found]
            largest[row["id"]] = max(areas)[1] if areas else -1
    labels = np.array([largest[name] for name in photos.ids.tolist()], dtype=np.int64)
    return dataclasses.replace(photos.without_targets(), labels=labels, true_labels=labels)


def open_photo_splits(folders: Folders) -> dict[str, Dataset]:
    """The photos of each split as they lie on the disk, without labels."""
    folder = folders.require("photos")
    opened = {split: open_multilabel(folder, split=split) for split in find_shards(folder)}
    return {
        split: dataclasses.replace(photos.without_targets(), images=_unsqueeze(photos.images))
        for split, photos in opened.items()
    }


def _unsqueeze(images: Images) -> Images:
    return images.images if isinstance(images, WholeImages) else images


def open_cifar10_splits(folders: Folders) -> dict[str, Dataset]:
    """All of CIFAR-10, training and test images, under their true labels."""
    folder = folders.require("cifar10")
    return {split: open_dataset(folder, split=split, label_column="label") for split in ("train", "test")}


def _corrupt_digits(kind: ClosedKind, closed_rate: float = 0.0, open_rate: float = 0.0) -> AuditData:
    recipe = NoiseRecipe("digits", closed_kind=kind, closed_rate=closed_rate, open_rate=open_rate)
    return AuditData(open_corrupted_digits(recipe), features="pixels")


_BOTH: tuple[Folder, ...] = ("cifar10", "cifar100")

CIFAR: dict[str, AuditData] = {
    "cifar10n-aggre": AuditData(open_human_labels("cifar10", "label_aggre"), ("cifar10",)),
    "cifar10n-worst": AuditData(open_human_labels("cifar10", "label_worst"), ("cifar10",)),
    "cifar100n": AuditData(open_human_labels("cifar100", "label_noisy"), ("cifar100",)),
    "ncifar10-mild": AuditData(open_recipe(open_ncifar("ncifar10-mild", HEAD)), _BOTH),
    "ncifar10": AuditData(open_recipe(open_ncifar("ncifar10", HEAD)), _BOTH),
    "ncifar10-hard": AuditData(open_recipe(open_ncifar("ncifar10-hard", HARD_HEAD)), _BOTH),
    "ncifar10-human": AuditData(open_recipe(open_ncifar("ncifar10-human", HEAD)), _BOTH),
    "cifar10-clean": AuditData(open_true_labels, ("cifar10",), splits=open_cifar10_splits),
}
"""CIFAR under people's labels, under the recipes' noise, and under its true labels."""

DIGITS: dict[str, AuditData] = {
    "digits-clean": _corrupt_digits("none"),
    "digits-symmetric-05": _corrupt_digits("symmetric", 0.05),
    "digits-symmetric-10": _corrupt_digits("symmetric", 0.1),
    "digits-symmetric-20": _corrupt_digits("symmetric", 0.2),
    "digits-symmetric-30": _corrupt_digits("symmetric", 0.3),
    "digits-symmetric-40": _corrupt_digits("symmetric", 0.4),
    "digits-pairs-10": _corrupt_digits("pairs", 0.1),
    "digits-pairs-30": _corrupt_digits("pairs", 0.3),
    "digits-instance-20": _corrupt_digits("instance", 0.2),
    "digits-open-20": _corrupt_digits("none", open_rate=0.2),
}
"""Ten corruptions, for the intervals around estimated noise rates."""

DATA: Mapping[str, AuditData] = {
    **CIFAR,
    **DIGITS,
    "photos": AuditData(open_photos, ("photos",), splits=open_photo_splits),
}
"""Everything that is measured, by name."""
