"""Images without labels: one file, or whatever a folder holds at any depth."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lauter.data.dataset import ImageFault, Images
from lauter.data.loading import load_images
from lauter.data.opening import RESIDENT_LIMIT
from lauter.data.sources.folder import IMAGE_SUFFIXES
from lauter.data.sources.listing import Listing
from lauter.errors import DataError


def open_images(path: str | Path, image_size: int) -> tuple[Images, NDArray[np.str_], tuple[ImageFault, ...]]:
    """Open images to predict.

    Args:
        path: an image file, or a folder; hidden files and folders (a leading dot) are ignored.
        image_size: side in pixels; the short side is resized and the centre cropped.

    Returns:
        Pixels, ids (paths relative to the folder), and what was left out.

    Raises:
        DataError: nothing is there, or no image can be read.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise DataError(f"{root}: no such file or folder")
    if root.is_file():
        files, root = [root], root.parent
    else:
        files = sorted(_walk(root))
    if not files:
        raise DataError(f"{root}: no images in it; their names end in {', '.join(sorted(IMAGE_SUFFIXES))}")
    ids = np.array([file.relative_to(root).as_posix() for file in files], dtype=np.str_)
    listing = Listing(
        name=root.resolve().name,
        split=None,
        cells=files,
        rows=np.arange(len(files), dtype=np.int64),
        ids=ids,
        labels=np.full(len(files), -1, dtype=np.int64),
        class_names=(),
    )
    loaded = load_images(listing, image_size=image_size, resident_limit=RESIDENT_LIMIT)
    if not len(loaded.kept):
        raise DataError(f"{root}: none of its {len(files)} images can be read ({loaded.faults[0].detail})")
    return loaded.images, ids[loaded.kept], loaded.faults


def _walk(root: Path) -> Iterator[Path]:
    """Files named like images, at any depth, outside hidden folders."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(folder) / name
