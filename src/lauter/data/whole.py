"""Whole pictures: squeezed to a square, so that no object at a margin is cropped away with its label."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lauter.data.dataset import ImageFault, Images, Int64s, Pixels, ResidentImages, Share, read_interleaved
from lauter.data.images import ImageError


@dataclass(frozen=True, eq=False)
class WholeImages:
    """Streamed images as squares of one size: the whole picture, whatever its proportions were.

    Attributes:
        images: what is streamed.
        size: side in pixels.
    """

    images: Images
    size: int

    def __len__(self) -> int:
        return len(self.images)

    @property
    def uniform(self) -> Pixels | None:
        """Streamed images are not resident."""
        return None

    def read(self, index: int) -> Pixels:
        """One image, uint8 [3, size, size]."""
        return np.ascontiguousarray(self.read_interleaved(index, _all_of_it).transpose(2, 0, 1))

    def read_interleaved(self, index: int, share: Share) -> Pixels:
        """One image, uint8 [size, size, 3]; whatever share of it is wanted."""
        picture = Image.fromarray(read_interleaved(self.images, index, _all_of_it))
        if picture.size != (self.size, self.size):
            picture = picture.resize((self.size, self.size), Image.Resampling.BICUBIC)
        return np.asarray(picture)


def _all_of_it(height: int, width: int) -> float:
    return 1.0


def hold_in_memory(
    images: WholeImages, ids: NDArray[np.str_]
) -> tuple[ResidentImages, Int64s, tuple[ImageFault, ...]]:
    """Decode all images at once.

    Args:
        images: what to hold.
        ids: [N] ids, for the faults.

    Returns:
        The images that could be decoded, which of the N these are, and the faults of the others.
    """
    pixels = np.empty((len(images), 3, images.size, images.size), dtype=np.uint8)

    def decode(row: int) -> ImageFault | None:
        try:
            pixels[row] = images.read(row)
        except ImageError as error:
            return ImageFault(str(ids[row]), error.fault, error.detail, True)
        return None

    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as executor:
        faults = list(executor.map(decode, range(len(images))))
    kept = np.array([row for row, fault in enumerate(faults) if fault is None], dtype=np.int64)
    held = pixels if len(kept) == len(images) else pixels[kept]
    return ResidentImages(held), kept, tuple(fault for fault in faults if fault is not None)
