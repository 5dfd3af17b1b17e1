"""The layout of COCO: annotations/instances_SPLIT.json beside the folders of images."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lauter.data.sources.listing import Listing, order_splits
from lauter.data.sources.targets import Int8s, make_targets
from lauter.errors import DataError

_PREFIX = "instances_"


def find_coco(folder: Path) -> dict[str, Path]:
    """The instance annotations in a folder, by split; empty where it is not laid out like COCO."""
    files = {path.stem.removeprefix(_PREFIX): path for path in folder.glob(f"annotations/{_PREFIX}*.json")}
    return {split: files[split] for split in order_splits(files)}


def list_coco(root: Path, split: str | None, class_names: Sequence[str] | None) -> tuple[Listing, Int8s]:
    """List a COCO set: a class is present where an object of it is annotated, a crowd included.

    Args:
        root: the folder that holds annotations/.
        split: as in the annotations' name, such as train2017; where None, the only one, or the only one
            that begins with train.
        class_names: the classes and their order; by default all categories, by their number.

    Returns:
        The listing, its own labels empty, and int8 [N, K].

    Raises:
        DataError: no such split, no folder with its images, or annotations that are damaged.
    """
    files = find_coco(root)
    if split is None:
        train = [name for name in files if name.startswith("train")]
        split = next(iter(files)) if len(files) == 1 else train[0] if len(train) == 1 else None
    if split not in files:
        raise DataError(f"{root}: pass split=, one of {', '.join(files)}; got {split!r}")
    path = files[split]
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        present: dict[Any, set[str]] = {entry["id"]: set() for entry in content["images"]}
        ids = [str(entry["file_name"]) for entry in content["images"]]
        for entry in content["annotations"]:
            present[entry["image_id"]].add(names[entry["category_id"]])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no COCO annotation of instances ({type(error).__name__}: {error}); expected images, "
            "categories and annotations that name them by their id"
        ) from error
    if len(present) < len(ids) or len(set(ids)) < len(ids):
        raise DataError(f"{path} lists an image more than once; every id and file_name may stand there once")
    ordered = tuple(names[number] for number in sorted(names)) if class_names is None else class_names
    targets, classes = make_targets(list(present.values()), None, ordered, str(path))
    folder = _find_images(root, split, ids)
    listing = Listing(
        name=root.resolve().name,
        split=split,
        cells=[folder / name for name in ids],
        rows=np.arange(len(ids)),
        ids=np.array(ids, dtype=np.str_),
        labels=np.full(len(ids), -1, dtype=np.int64),
        class_names=classes,
    )
    return listing, targets


def _find_images(root: Path, split: str, ids: Sequence[str]) -> Path:
    """The folder with a split's images: the first of the usual ones that holds one of the first images."""
    folders = [root / split, root / "images" / split, root / "images", root]
    for folder in folders:
        if any((folder / name).is_file() for name in ids[:10]):
            return folder
    tried = ", ".join(str(folder) for folder in folders)
    raise DataError(f"{root}: the images of split {split!r} are in none of {tried}; put them into the first")
