"""Images with several labels each: the data set, and one door for VOC, COCO, CSV and Parquet."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lauter.data.dataset import UNLABELLED, Dataset, ImageFault, Images, Int64s, select_images
from lauter.data.images import MAX_PIXELS, MIN_SIDE
from lauter.data.loading import load_images
from lauter.data.opening import RESIDENT_LIMIT
from lauter.data.sources import coco, label_lists, table, voc
from lauter.data.sources.listing import Listing
from lauter.data.sources.targets import ABSENT, PRESENT, UNKNOWN, Int8s
from lauter.data.whole import WholeImages, hold_in_memory
from lauter.errors import DataError
from lauter.noise.seeding import step_generator


@dataclass(frozen=True, eq=False)
class MultiLabelDataset:
    """Images with any number of labels each.

    Everything downstream is keyed by the row index 0..N-1; ``ids`` are what users see.

    Attributes:
        name: short name, for titles and file names.
        images: pixels by index.
        targets: int8 [N, K]: 1 where the class is in the image, 0 where it is not, -1 where that is unknown
            or shall not count; -1 is neither learnt nor scored.
        class_names: K names.
        ids: [N] stable ids, unique.
        faults: images that were left out or changed on the way in.
        source: how it was opened, for config.yaml.
    """

    name: str
    images: Images
    targets: Int8s
    class_names: tuple[str, ...]
    ids: NDArray[np.str_]
    faults: tuple[ImageFault, ...] = ()
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.images), len(self.class_names))
        if self.targets.shape != shape or self.targets.dtype != np.int8:
            raise DataError(
                f"{self.name}: targets must be int8 {list(shape)} (images by classes), "
                f"not {self.targets.dtype} {list(self.targets.shape)}"
            )
        if strange := sorted(set(np.unique(self.targets).tolist()) - {PRESENT, ABSENT, UNKNOWN}):
            raise DataError(
                f"{self.name}: targets must be 1 (present), 0 (absent) or -1 (unknown), found {strange[0]}"
            )
        if len(self.ids) != len(self.images) or len(np.unique(self.ids)) != len(self.ids):
            raise DataError(f"{self.name}: ids must be unique, one for each of {len(self.images)} images")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.class_names)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """[N] whether anything is known of the image."""
        return np.asarray((self.targets != UNKNOWN).any(1))

    def without_targets(self) -> Dataset:
        """The images with their ids and class names as a data set without any label."""
        nothing = np.full(len(self), UNLABELLED, dtype=np.int64)
        return Dataset(
            self.name, self.images, nothing, self.class_names, self.ids, None, self.faults, self.source
        )

    def subset(self, index: Sequence[int] | NDArray[Any]) -> "MultiLabelDataset":
        """The rows at ``index`` (integers, or a mask [N]), in that order."""
        rows = np.asarray(index)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        images = select_images(self.images, rows)
        return replace(self, images=images, targets=self.targets[rows], ids=self.ids[rows])

    def fingerprint(self) -> str:
        """Hash of ids, targets and class names (and pixels where resident)."""
        digest = hashlib.sha256(self.without_targets().fingerprint().encode())
        digest.update(np.ascontiguousarray(self.targets).tobytes())
        return digest.hexdigest()[:16]


def open_multilabel(
    spec: str | Path,
    *,
    split: str | None = None,
    label_column: str | None = None,
    image_column: str | None = None,
    id_column: str | None = None,
    separator: str | None = None,
    image_size: int | None = None,
    class_names: Sequence[str] | None = None,
    resident_limit: int = RESIDENT_LIMIT,
    max_pixels: int = MAX_PIXELS,
) -> MultiLabelDataset:
    """Open images with several labels each, wherever they are.

    Pictures that are not square are squeezed, not cropped: an object at the margin keeps its label. Images
    that cannot be read are left out and stand in ``MultiLabelDataset.faults``.

    Args:
        spec: a folder in the layout of Pascal VOC (VOCdevkit, or VOC2007 inside it) or of COCO
            (annotations/instances_*.json beside the image folders); a CSV, TSV or Parquet manifest; a folder
            of Parquet shards in the Hugging Face layout.
        split: which part. Without it VOC gives trainval, COCO its only train split, and tables their only
            split, or train of several.
        label_column: tables: lists of names or integers, or names in one cell; by default a column called
            labels, classes, tags, categories or targets, or what :func:`lauter.open_dataset` looks for. An
            empty cell means that nothing is known of the image; an empty list, or the separator alone, means
            none of the classes.
        image_column: tables: as for :func:`lauter.open_dataset`.
        id_column: tables: likewise.
        separator: the sign between names in one cell; by default the first of | ; , that occurs.
        image_size: hold the images in memory at this size. By default images of one square size up to 96
            pixels keep it, and all others stream from where they are at 224.
        class_names: the classes and their order; all labels must be among them.
        resident_limit: bytes of pixels above which images stream whatever their size.
        max_pixels: refuse images with more pixels than this.

    Returns:
        The data set. In VOC, a class of which an image has difficult objects alone is unknown there. In
        COCO, a crowd counts as present.

    Raises:
        DataError: nothing is there, it is laid out otherwise, or arguments do not fit the source. The
            message says which and what to do.
    """
    path = _locate(spec)
    if image_size is not None and image_size < MIN_SIDE:
        raise DataError(f"{path}: image_size must be at least {MIN_SIDE}, not {image_size}")
    if class_names is not None and (isinstance(class_names, str) or len(set(class_names)) < len(class_names)):
        raise DataError(f"{path}: class_names must be a sequence of different names, not {class_names!r}")
    columns = table.Columns(image_column, label_column, None, id_column)
    listing, targets = _list_source(path, split, columns, separator, class_names)
    if not len(listing):
        raise DataError(f"{path}: no images found in split {listing.split!r}")
    loaded = load_images(listing, image_size=None, resident_limit=resident_limit, max_pixels=max_pixels)
    images, kept, faults = loaded.images, loaded.kept, loaded.faults
    size = image_size or loaded.image_size
    if images.uniform is None:
        images = whole = WholeImages(images, size)
        if image_size is not None and 3 * size * size * len(whole) <= resident_limit:
            images, decoded, broken = hold_in_memory(whole, listing.ids[kept])
            kept, faults = kept[decoded], faults + broken
    if not len(kept):
        raise DataError(f"{path}: no image can be used; the first fault is {faults[0]}")
    dataset = MultiLabelDataset(
        listing.name, images, targets[kept], listing.class_names, listing.ids[kept], faults
    )
    if not (dataset.targets == PRESENT).any():
        raise DataError(f"{path}: no image has a label; check the column, or the split {listing.split!r}")
    arguments = {
        "spec": str(path),
        "split": listing.split,
        "label_column": label_column,
        "image_column": image_column,
        "id_column": id_column,
        "separator": separator,
        "image_size": size,
        "class_names": None if class_names is None else list(class_names),
        "resident_limit": 0 if images.uniform is None else resident_limit,
        "max_pixels": max_pixels,
    }
    return replace(dataset, source=arguments)


def available_multilabel_splits(spec: str | Path) -> tuple[str, ...]:
    """Names of the splits that :func:`open_multilabel` can open; empty where the source is one whole.

    Raises:
        DataError: nothing is there.
    """
    path = _locate(spec)
    if path.is_file():
        return table.list_table_splits(path)
    if root := voc.find_voc(path):
        return voc.list_voc_splits(root)
    return tuple(coco.find_coco(path) or table.find_shards(path))


def hold_out_images(targets: Int8s, share: float, seed: int) -> tuple[Int64s, Int64s]:
    """Split rows into a training part and a hold-out in which every class has about its share.

    Classes are gone through from the rarest on; of the images of each, so many are held out as it lacks to
    its share. No class loses its last image for training. Images of which nothing is known stay there.

    Args:
        targets: [N, K].
        share: of the images, for the hold-out; between 0 and 1.
        seed: which images are drawn.

    Returns:
        Rows for training and rows held out, both ascending.

    Raises:
        DataError: the share is out of its range, or no class has two images to divide.

    Source: after the iterative stratification of Sechidis, Tsoumakas and Vlahavas (2011), for two parts,
    rarest class first by its count in all images (theirs: among those not yet given to a part).
    """
    if not 0 < share < 1:
        raise DataError(f"the share to hold out must be between 0 and 1, not {share}")
    present = targets == PRESENT
    left = present.sum(0)
    wanted = np.round(share * left).astype(np.int64)
    order = step_generator(seed, "hold out").permutation(len(targets))
    held = np.zeros(len(targets), dtype=bool)

    for column in np.argsort(left, kind="stable"):
        rows = order[present[order, column]]
        # Images whose other classes have their share already are taken where there are no others.
        for row, sparing in [*((row, True) for row in rows), *((row, False) for row in rows)]:
            classes = present[row]
            if wanted[column] <= 0:
                break
            if held[row] or (left[classes] < 2).any() or (sparing and (wanted[classes] <= 0).any()):
                continue
            held[row] = True
            left, wanted = left - classes, wanted - classes
    if not held.any():
        raise DataError(
            f"a share of {share} of {len(targets)} images with {int(present.sum())} labels holds out no "
            "image; raise the share"
        )
    empty = order[~present[order].any(1) & (targets[order] == ABSENT).all(1)]
    held[empty[: round(share * len(empty))]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _locate(spec: str | Path) -> Path:
    path = Path(os.path.abspath(Path(spec).expanduser()))
    if not path.exists():
        raise DataError(f"{str(spec)!r}: no such folder or file")
    if path.is_file() and path.suffix.lower() not in table.TABLE_SUFFIXES:
        raise DataError(f"{path}: expected a folder, or a table ending in .csv, .tsv or .parquet")
    return path


def _list_source(
    path: Path,
    split: str | None,
    columns: table.Columns,
    separator: str | None,
    class_names: Sequence[str] | None,
) -> tuple[Listing, Int8s]:
    if path.is_file() or table.find_shards(path):
        return label_lists.list_label_table(path, split, columns, separator, class_names)
    if separator is not None or columns != table.Columns():
        raise DataError(
            f"{path}: columns and a separator belong to tables, and this is a folder; leave them out"
        )
    if root := voc.find_voc(path):
        return voc.list_voc(root, split, class_names)
    if coco.find_coco(path):
        return coco.list_coco(path, split, class_names)
    raise DataError(
        f"{path}: several labels per image are read from the layouts of Pascal VOC (JPEGImages, Annotations, "
        "ImageSets/Main) and COCO (annotations/instances_*.json), from tables and from Parquet shards; "
        "none of these is here (for class folders leave out --multi-label)"
    )
