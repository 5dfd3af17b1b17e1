"""From listed images to pixels by index: decoded at once where they fit, else when they are asked for."""

import os
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lauter.data.dataset import ImageFault, Images, Int64s, Pixels, ResidentImages, Share
from lauter.data.images import (
    MAX_ASPECT,
    MAX_PIXELS,
    ImageError,
    decode_image,
    fit_square,
    open_rgb,
    probe_image,
    to_pixels,
)
from lauter.data.sources.cells import ParquetCells
from lauter.data.sources.listing import Cells, Listing

SMALL_SIDE = 96
"""Side in pixels up to which images of one size are held as they are."""
LARGE_SIZE = 224
"""Image size of everything else, where the caller names none."""
_CHUNK = 64


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """Images that are decoded whole when asked for.

    Attributes:
        cells: encoded images.
        rows: [N] row in ``cells`` of each image.
        ids: [N] ids, for messages.
        max_pixels: refuse images with more pixels than this.
        reduced: whether views are made from JPEG images decoded at a smaller scale, where that suffices.
    """

    cells: Cells
    rows: Int64s
    ids: NDArray[np.str_]
    max_pixels: int = MAX_PIXELS
    reduced: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def uniform(self) -> Pixels | None:
        """Streamed images are not resident."""
        return None

    def read(self, index: int) -> Pixels:
        """One image, uint8 [3, H, W].

        Raises:
            ImageError: the image is broken in a way that its header and its end did not show; names its id.
        """
        return self.read_noted(index)[0]

    def read_noted(self, index: int) -> tuple[Pixels, str | None]:
        """One image as :meth:`read` gives it, and what decoding changed, as ``decode_image`` says it.

        Raises:
            ImageError: as of :meth:`read`.
        """
        try:
            return decode_image(self.cells[int(self.rows[index])], max_pixels=self.max_pixels)
        except ImageError as error:
            raise ImageError(error.fault, f"{self.ids[index]}: {error.detail}") from error

    def read_interleaved(self, index: int, share: Share) -> Pixels:
        """One image as the decoder gives it, uint8 [H, W, 3]; smaller where that suffices and is allowed.

        Raises:
            ImageError: as of :meth:`read`.
        """
        cell = self.cells[int(self.rows[index])]
        try:
            image, _ = open_rgb(cell, self.max_pixels, share=share if self.reduced else None)
        except ImageError as error:
            raise ImageError(error.fault, f"{self.ids[index]}: {error.detail}") from error
        return np.asarray(image)

    def stamp(self, index: int) -> str:
        """Size and time of change of the image's file, or length and checksum of its bytes.

        Where views are made from reduced images, it says so: their pixels are others.

        Raises:
            ImageError: its file is gone; names its id.
        """
        return self._stamp_cell(index) + (" reduced" if self.reduced else "")

    def _stamp_cell(self, index: int) -> str:
        row = int(self.rows[index])
        if isinstance(self.cells, ParquetCells):
            return self.cells.stamp(row)
        cell = self.cells[row]
        if isinstance(cell, bytes):
            return f"{len(cell)} {zlib.crc32(cell)}"
        try:
            about = os.stat(cell)
        except OSError as error:
            raise ImageError("missing", f"{self.ids[index]}: {error.strerror}") from error
        return f"{about.st_size} {about.st_mtime_ns}"


@dataclass(frozen=True, eq=False)
class LoadedImages:
    """What became of a listing's images.

    Attributes:
        images: pixels of the images that can be used.
        kept: [n] which of the listed images these are, ascending.
        faults: images left out, and images changed on the way in.
        image_size: side in pixels that the images have, or that views of them should have.
    """

    images: Images
    kept: Int64s
    faults: tuple[ImageFault, ...]
    image_size: int


def load_images(
    listing: Listing,
    *,
    image_size: int | None,
    resident_limit: int,
    max_pixels: int = MAX_PIXELS,
    reduced: bool = False,
) -> LoadedImages:
    """Decode a listing's images at once where they are small or a size is given and they fit, else stream.

    Without ``image_size``, images that all have one square size of at most 96 pixels keep it, pixel for
    pixel; for all others the size is 224 and they stream, whole. Streamed images are checked here by header
    and end (:func:`lauter.data.images.probe_image`).

    Args:
        listing: what to load.
        image_size: resize the short side to this and crop the centre; images of this size are not touched.
        resident_limit: bytes of pixels up to which images are held in memory.
        max_pixels: refuse images with more pixels than this.
        reduced: decode JPEG images at a smaller scale where that suffices, as ``open_rgb`` does.

    Returns:
        The images that can be used, and the faults of those that cannot.
    """
    with _quiet_decoders(), ThreadPoolExecutor(_usable_cores()) as executor:
        if image_size is not None and _resident_bytes(len(listing), image_size) <= resident_limit:
            return _decode_all(listing, image_size, max_pixels, executor, reduced)
        sizes, faults = _probe_all(listing, max_pixels, executor)
        kept = np.flatnonzero(sizes[:, 0] > 0)
        if image_size is None:
            side = _common_side(sizes[kept])
            if side is not None and _resident_bytes(len(kept), side) <= resident_limit:
                return _decode_all(listing, side, max_pixels, executor)
            image_size = side or LARGE_SIZE
    images = EncodedImages(listing.cells, listing.rows[kept], listing.ids[kept], max_pixels, reduced)
    return LoadedImages(images, kept, faults, image_size)


def _decode_all(
    listing: Listing, size: int, max_pixels: int, executor: ThreadPoolExecutor, reduced: bool = False
) -> LoadedImages:
    pixels = np.empty((len(listing), 3, size, size), dtype=np.uint8)

    def wanted(height: int, width: int) -> float:
        return size / min(height, width)

    def decode(position: int) -> list[tuple[str, str]]:
        cell = listing.cells[int(listing.rows[position])]
        image, changes = open_rgb(cell, max_pixels, share=wanted if reduced else None)
        pixels[position] = to_pixels(fit_square(image, size))
        kinds = changes.split("+") if changes else []
        return [(kind, "converted to 8-bit RGB") for kind in kinds] + _note_aspect(*image.size)

    faults = _collect_faults(listing, decode, executor)
    dropped = {fault.id for fault in faults if fault.dropped}
    if not dropped:
        return LoadedImages(ResidentImages(pixels), np.arange(len(listing), dtype=np.int64), faults, size)
    kept = np.flatnonzero([id_ not in dropped for id_ in listing.ids.tolist()])
    for target, origin in enumerate(kept):  # in place: a copy would need the memory twice
        pixels[target] = pixels[origin]
    return LoadedImages(ResidentImages(pixels[: len(kept)]), kept, faults, size)


def _probe_all(
    listing: Listing, max_pixels: int, executor: ThreadPoolExecutor
) -> tuple[NDArray[np.int64], tuple[ImageFault, ...]]:
    """Heights and widths [N, 2], 0 where an image cannot be used, and why not."""
    sizes = np.zeros((len(listing), 2), dtype=np.int64)

    def probe(position: int) -> list[tuple[str, str]]:
        height, width = probe_image(listing.cells[int(listing.rows[position])], max_pixels=max_pixels)
        sizes[position] = height, width
        return _note_aspect(width, height)

    return sizes, _collect_faults(listing, probe, executor)


def _collect_faults(
    listing: Listing, visit: Callable[[int], list[tuple[str, str]]], executor: ThreadPoolExecutor
) -> tuple[ImageFault, ...]:
    """Visit every image on the executor's threads; note what is odd about it, or that it cannot be used."""

    def visit_chunk(start: int) -> list[ImageFault]:
        faults = []
        for position in range(start, min(start + _CHUNK, len(listing))):
            id_ = str(listing.ids[position])
            try:
                notes = visit(position)
            except ImageError as error:
                faults.append(ImageFault(id_, error.fault, error.detail, True))
                continue
            faults += [ImageFault(id_, kind, detail, False) for kind, detail in notes]
        return faults

    chunks = executor.map(visit_chunk, range(0, len(listing), _CHUNK))
    return tuple(fault for faults in chunks for fault in faults)


def _note_aspect(width: int, height: int) -> list[tuple[str, str]]:
    """A note where the centre square, which is what a view shows, is less than a third of the image."""
    aspect = max(width, height) / min(width, height)
    return [("extreme aspect", f"{aspect:.1f} to 1")] if aspect > MAX_ASPECT else []


def _common_side(sizes: NDArray[np.int64]) -> int | None:
    """The side of all images where they are square, equal and small."""
    side = int(sizes[0, 0]) if len(sizes) else 0
    return side if 0 < side <= SMALL_SIDE and bool((sizes == side).all()) else None


def _resident_bytes(count: int, size: int) -> int:
    return count * 3 * size * size


def _usable_cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(32, cores)


@contextmanager
def _quiet_decoders() -> Iterator[None]:
    """Hush what Pillow warns of (odd metadata, large images): the faults say it, per image and by id."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield
