"""One pass over the pixels: what the search for faults and for near-duplicates both need of every image.

Of an image only a few numbers and a thumbnail of 16 x 16 stay, 0.8 KB, so that a million of them fit into
memory. Resident images are measured in blocks, streamed ones while they are read, on all cores.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lauter.data.dataset import ImageFault, Images, Int64s, Pixels, SelectedImages
from lauter.data.images import ImageError, to_image, to_pixels
from lauter.data.loading import EncodedImages
from lauter.errors import DataError

Float32s = NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Called with the number of images done and of all."""

THUMBNAIL_SIDE = 16
DARK_LEVEL = 40
"""Luma of 0..255 up to which a pixel is dark."""
BRIGHT_LEVEL = 240
"""Luma from which a pixel is bright."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in luma: ITU-R 601."""

_MEASURED_SIDE = 256
_BLOCK = 128
_STREAMED_BLOCK = 16


@dataclass(frozen=True, eq=False)
class ImageMeasures:
    """What is known of N images after their pixels have been seen once.

    Attributes:
        heights: [N] in pixels; 0 where the image could not be read.
        widths: [N] likewise.
        hashes: [N] 64 bits of BLAKE2b over size and decoded pixels: equal for equal pictures.
        thumbnails: uint8 [N, 3, 16, 16]; each cell is the mean of its area.
        spread: [N] standard deviation over the pixels, of the channel where it is largest; 0..127.5.
        dark_share: [N] share of pixels with luma of at most ``DARK_LEVEL``.
        bright_share: [N] share of pixels with luma of at least ``BRIGHT_LEVEL``.
        colour: [N] mean over the pixels of largest minus smallest channel; 0 where the image is grey.
        notes: images that could not be read after all, or were changed by decoding; none is dropped.
    """

    heights: Int64s
    widths: Int64s
    hashes: NDArray[np.uint64]
    thumbnails: Pixels
    spread: Float32s
    dark_share: Float32s
    bright_share: Float32s
    colour: Float32s
    notes: tuple[ImageFault, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.heights)
        arrays = (self.widths, self.hashes, self.thumbnails, self.spread, self.dark_share, self.bright_share)
        for array in (*arrays, self.colour):
            if len(array) != count:
                raise DataError(f"measures of {count} images must have {count} rows, not {len(array)}")
        if self.thumbnails.shape[1:] != (3, THUMBNAIL_SIDE, THUMBNAIL_SIDE):
            raise DataError(
                f"thumbnails must be [N, 3, {THUMBNAIL_SIDE}, {THUMBNAIL_SIDE}], "
                f"not {list(self.thumbnails.shape)}"
            )

    def __len__(self) -> int:
        return len(self.heights)

    @property
    def readable(self) -> NDArray[np.bool_]:
        """[N] whether the image could be read."""
        return np.asarray(self.heights > 0)


class _Block(NamedTuple):
    """Measures of B images of one size."""

    hashes: NDArray[np.uint64]
    thumbnails: Pixels
    spread: Float32s
    dark_share: Float32s
    bright_share: Float32s
    colour: Float32s


def measure_images(
    images: Images, ids: Sequence[str] | NDArray[np.str_], *, progress: Progress | None = None
) -> ImageMeasures:
    """See every image once.

    Of an image whose shorter side has 512 pixels or more, all but the hash is measured on a copy reduced by a
    whole factor to between 256 and 511 pixels there: noise of single pixels is not asked for.

    Args:
        images: what to measure, of any sizes.
        ids: [N] ids, for the notes.
        progress: told how far the pass is, from the calling thread.

    Returns:
        Measures of all images; those that cannot be read have height 0 and stand in the notes.

    Raises:
        DataError: there are not as many ids as images.

    Example:
        >>> from lauter.data.dataset import ResidentImages
        >>> pixels = np.full((2, 3, 8, 8), 255, dtype=np.uint8)
        >>> measures = measure_images(ResidentImages(pixels), ["a", "b"])
        >>> measures.bright_share.tolist(), bool(measures.hashes[0] == measures.hashes[1])
        ([1.0, 1.0], True)
    """
    count = len(images)
    if len(ids) != count:
        raise DataError(f"{len(ids)} ids for {count} images; hand over one for each")
    measures = ImageMeasures(
        heights=np.zeros(count, dtype=np.int64),
        widths=np.zeros(count, dtype=np.int64),
        hashes=np.zeros(count, dtype=np.uint64),
        thumbnails=np.zeros((count, 3, THUMBNAIL_SIDE, THUMBNAIL_SIDE), dtype=np.uint8),
        spread=np.zeros(count, dtype=np.float32),
        dark_share=np.zeros(count, dtype=np.float32),
        bright_share=np.zeros(count, dtype=np.float32),
        colour=np.zeros(count, dtype=np.float32),
    )
    uniform = images.uniform
    size = _BLOCK if uniform is not None else _STREAMED_BLOCK

    def visit(start: int) -> list[ImageFault]:
        rows = range(start, min(start + size, count))
        if uniform is not None:
            _store(measures, slice(rows.start, rows.stop), uniform[rows.start : rows.stop])
            return []
        return [note for row in rows for note in _visit_streamed(measures, images, row, str(ids[row]))]

    notes: list[ImageFault] = []
    with ThreadPoolExecutor(count_cores()) as executor:
        starts = iter(range(0, count, size))
        # A bounded number of blocks is in flight, so that a stop is heard soon.
        pending = [executor.submit(visit, start) for start in islice(starts, 4 * count_cores())]
        done = 0
        while pending:
            notes += pending.pop(0).result()
            done = min(done + size, count)
            if progress is not None:
                progress(done, count)
            pending += [executor.submit(visit, start) for start in islice(starts, 1)]
    return ImageMeasures(**{**vars(measures), "notes": tuple(notes)})


def join_measures(first: ImageMeasures, second: ImageMeasures) -> ImageMeasures:
    """Measures of two sets of images as of one, the first set's rows first."""
    joined = {
        name: np.concatenate([value, getattr(second, name)])
        for name, value in vars(first).items()
        if name != "notes"
    }
    return ImageMeasures(**joined, notes=first.notes + second.notes)


def shrink(pixels: Pixels | Float32s) -> Float32s:
    """Mean colours of 16 x 16 equal areas of each image.

    Args:
        pixels: [..., 3, H, W] of any size, smaller ones too; an area then lies within one pixel or several.

    Returns:
        float32 [..., 3, 16, 16].
    """
    height, width = pixels.shape[-2:]
    values = pixels.astype(np.float32, copy=False)
    return np.asarray(_area_weights(height) @ values @ _area_weights(width).T)


def _visit_streamed(measures: ImageMeasures, images: Images, row: int, id_: str) -> list[ImageFault]:
    try:
        pixels, changes = _read(images, row)
    except ImageError as error:
        return [ImageFault(id_, error.fault, error.detail, False)]
    _store(measures, slice(row, row + 1), pixels[None])
    kinds = changes.split("+") if changes else []
    return [ImageFault(id_, kind, "converted to 8-bit RGB", False) for kind in kinds]


def _read(images: Images, row: int) -> tuple[Pixels, str | None]:
    """One image and, where its source can tell, what decoding changed."""
    while isinstance(images, SelectedImages):
        row, images = int(images.rows[row]), images.images
    if isinstance(images, EncodedImages):
        return images.read_noted(row)
    return images.read(row), None


def _store(measures: ImageMeasures, rows: slice, pixels: Pixels) -> None:
    measures.heights[rows], measures.widths[rows] = pixels.shape[2:]
    for name, values in _measure_block(pixels)._asdict().items():
        getattr(measures, name)[rows] = values


def _measure_block(pixels: Pixels) -> _Block:
    """Measure images [B, 3, H, W]."""
    hashes = np.array([_hash_pixels(image) for image in pixels], dtype=np.uint64)
    pixels = _reduce(pixels)
    values = pixels.astype(np.float32)
    luma = LUMA[0] * values[:, 0] + LUMA[1] * values[:, 1] + LUMA[2] * values[:, 2]
    # A grey level's luma may come out one rounding error below it.
    bright = luma >= BRIGHT_LEVEL - 0.01
    return _Block(
        hashes=hashes,
        thumbnails=np.clip(np.rint(shrink(values)), 0, 255).astype(np.uint8),
        spread=values.std(axis=(2, 3)).max(1),
        dark_share=(luma <= DARK_LEVEL + 0.01).mean((1, 2), dtype=np.float32),
        bright_share=bright.mean((1, 2), dtype=np.float32),
        colour=(pixels.max(1) - pixels.min(1)).mean((1, 2), dtype=np.float32),
    )


def _hash_pixels(pixels: Pixels) -> int:
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=8)
    digest.update(np.ascontiguousarray(pixels).data)
    return int.from_bytes(digest.digest(), "little")


def _reduce(pixels: Pixels) -> Pixels:
    """Images [B, 3, H, W] of which a shorter side of 512 pixels or more is brought below that."""
    factor = min(pixels.shape[2:]) // _MEASURED_SIDE
    if factor < 2:
        return pixels
    return np.stack([to_pixels(to_image(image).reduce(factor)) for image in pixels])


@lru_cache(maxsize=256)
def _area_weights(length: int) -> Float32s:
    """[16, length] share of each pixel in each of 16 equal parts of a side; rows sum to 1."""
    edges = np.linspace(0, length, THUMBNAIL_SIDE + 1)
    starts = np.arange(length)
    overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return np.asarray(np.maximum(overlap, 0) * THUMBNAIL_SIDE / length, dtype=np.float32)


def count_cores() -> int:
    """Cores that this process may use, 32 at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(32, cores)
