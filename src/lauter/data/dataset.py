"""Dataset: pixels by index, labels as given, stable ids, class names. What all sources open into."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lauter.errors import DataError

UNLABELLED = -1
"""Given label of an image that has none."""
OPEN = -1
"""True label of an image that belongs to none of the classes."""

Int64s = NDArray[np.int64]
Pixels = NDArray[np.uint8]


class Images(Protocol):
    """Pixels by index. Small sets are one array; large ones are read from disk when asked for."""

    def __len__(self) -> int: ...

    @property
    def uniform(self) -> Pixels | None:
        """All images as one uint8 array [N, 3, S, S] where they are resident; None where they stream."""
        ...

    def read(self, index: int) -> Pixels:
        """One image, whole, as uint8 [3, H, W] in RGB."""
        ...


@runtime_checkable
class Stamped(Protocol):
    """Streamed images of which the source tells whether one has changed."""

    def stamp(self, index: int) -> str:
        """What tells one image from another that stands in its place, without decoding it."""
        ...


Share = Callable[[int, int], float]
"""Of an image's height and width: the share of its resolution that is wanted of it."""


@runtime_checkable
class Interleaved(Protocol):
    """Streamed images that can be had as decoders give them, the three values of a pixel side by side."""

    def read_interleaved(self, index: int, share: Share) -> Pixels:
        """One image, whole, as uint8 [H, W, 3] in RGB.

        Where the source may decode at a reduced scale, at no smaller one than ``share`` says.
        """
        ...


def read_interleaved(images: Images, index: int, share: Share) -> Pixels:
    """One image, whole, as uint8 [H, W, 3] in RGB, from images of any kind.

    Args:
        images: pixels by index.
        index: row of the image.
        share: what share of the resolution is wanted, for sources that may decode at a reduced scale.

    Raises:
        DataError: the image cannot be read.
    """
    if isinstance(images, Interleaved):
        return images.read_interleaved(index, share)
    return np.asarray(images.read(index).transpose(1, 2, 0))


@dataclass(frozen=True)
class ImageFault:
    """An image that could not be used, or that was changed to be used.

    Attributes:
        id: the image's id.
        fault: 'unreadable', 'truncated', 'empty', 'tiny', 'enormous', ... : see ``data/images.py``.
        detail: what the decoder said, for people.
        dropped: whether the image is left out of the data set.
    """

    id: str
    fault: str
    detail: str
    dropped: bool


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images that are not trusted.

    Everything downstream is keyed by the row index 0..N-1; ``ids`` are what users see.

    Attributes:
        name: short name, for titles and file names.
        images: pixels by index.
        labels: [N] int64, labels as given; ``UNLABELLED`` (-1) where there is none.
        class_names: K names; label k means class_names[k].
        ids: [N] stable ids (relative paths or row keys), unique.
        true_labels: [N] int64 or None; ``OPEN`` (-1) for images of no class. Evaluation only:
            training and selection never see it (see :meth:`without_truth`).
        faults: images that were left out or changed on the way in.
        source: how it was opened, for config.yaml.
        original_labels: [N] int64 or None; the labels that a checked label table replaced by ``labels``.
        trusted: [N] or None; whether a person decided the label, or that there is none: training then takes
            it as it is.
    """

    name: str
    images: Images
    labels: Int64s
    class_names: tuple[str, ...]
    ids: NDArray[np.str_]
    true_labels: Int64s | None = None
    faults: tuple[ImageFault, ...] = ()
    source: dict[str, Any] = field(default_factory=dict)
    original_labels: Int64s | None = None
    trusted: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        n, k = len(self.images), len(self.class_names)
        for name in ("labels", "ids", "true_labels", "original_labels", "trusted"):
            values = getattr(self, name)
            if values is not None and len(values) != n:
                raise DataError(f"{self.name}: {len(values)} {name} for {n} images")
        for name, values in (
            ("label", self.labels),
            ("true label", self.true_labels),
            ("original label", self.original_labels),
        ):
            if values is not None and n and (values.min() < -1 or values.max() >= k):
                raise DataError(
                    f"{self.name}: {name}s must be in -1..{k - 1}, found {values.min()}..{values.max()}"
                )
        if len(np.unique(self.ids)) != n:
            values, counts = np.unique(self.ids, return_counts=True)
            again = ", ".join(repr(str(v)) for v in values[counts > 1][:3])
            raise DataError(f"{self.name}: ids must be unique; these stand more than once: {again}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.class_names)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """[N] whether the image has a given label."""
        return np.asarray(self.labels != UNLABELLED)

    def without_truth(self) -> "Dataset":
        """The same data without true labels: what training and selection code receives."""
        return replace(self, true_labels=None)

    def with_labels(self, labels: Int64s) -> "Dataset":
        """The same images under other labels."""
        return replace(self, labels=np.asarray(labels, dtype=np.int64))

    def with_truth(self, true_labels: Int64s) -> "Dataset":
        """The same images with these true labels."""
        return replace(self, true_labels=np.asarray(true_labels, dtype=np.int64))

    def as_open(self, class_names: tuple[str, ...]) -> "Dataset":
        """The same images as images of none of ``class_names``: unlabelled, and open in truth."""
        nothing = np.full(len(self), UNLABELLED, dtype=np.int64)
        ids = np.array([f"open/{name}" for name in self.ids], dtype=np.str_)
        return replace(
            self,
            labels=nothing,
            true_labels=nothing + 0,
            class_names=class_names,
            ids=ids,
            original_labels=None,
            trusted=None,
        )

    def subset(self, index: Sequence[int] | NDArray[Any]) -> "Dataset":
        """The rows at ``index`` (integers, or a mask [N]), in that order."""
        rows = np.asarray(index)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        return replace(
            self,
            images=select_images(self.images, rows),
            labels=self.labels[rows],
            ids=self.ids[rows],
            true_labels=None if self.true_labels is None else self.true_labels[rows],
            original_labels=None if self.original_labels is None else self.original_labels[rows],
            trusted=None if self.trusted is None else self.trusted[rows],
        )

    def fingerprint(self) -> str:
        """Hash of ids, given labels, whom they are from, and class names (and pixels where resident).

        It keys caches and runs.
        """
        digest = hashlib.sha256()
        digest.update("\0".join(self.class_names).encode())
        digest.update("\0".join(self.ids.tolist()).encode())
        digest.update(np.ascontiguousarray(self.labels).tobytes())
        if self.trusted is not None:
            digest.update(b"trusted" + np.packbits(self.trusted).tobytes())
        if self.images.uniform is not None:
            digest.update(np.ascontiguousarray(self.images.uniform).tobytes())
        return digest.hexdigest()[:16]

    def fingerprint_images(self) -> str:
        """Hash of ids and pictures whatever their labels; keys what was computed from pictures alone.

        Of resident images it covers every pixel. Of images that stream it covers what their source tells
        without decoding: of files size and time of change, of encoded images in memory every byte, of images
        inside Parquet files size and time of change of these. Of other images it covers the ids alone.
        """
        digest = hashlib.sha256("\0".join(self.ids.tolist()).encode())
        pixels = self.images.uniform
        if pixels is not None:
            digest.update(f"\0\0{pixels.shape}".encode())
            digest.update(np.ascontiguousarray(pixels).data)
        elif isinstance(self.images, Stamped):
            for index in range(len(self)):
                digest.update(f"\0\0{self.images.stamp(index)}".encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class ResidentImages:
    """Images of one size in one array.

    Attributes:
        pixels: uint8 [N, 3, S, S].
    """

    pixels: Pixels

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4 or self.pixels.shape[1] != 3:
            raise DataError(
                f"resident pixels must be uint8 [N, 3, H, W], not {self.pixels.dtype} {self.pixels.shape}"
            )

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def uniform(self) -> Pixels | None:
        """The array itself."""
        return self.pixels

    def read(self, index: int) -> Pixels:
        """One image, uint8 [3, S, S]."""
        return np.asarray(self.pixels[index])


@dataclass(frozen=True, eq=False)
class SelectedImages:
    """Some rows of streamed images, in a given order."""

    images: Images
    rows: Int64s

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def uniform(self) -> Pixels | None:
        """Streamed images are not resident."""
        return None

    def read(self, index: int) -> Pixels:
        """One image, uint8 [3, H, W]."""
        return self.images.read(int(self.rows[index]))

    def read_interleaved(self, index: int, share: Share) -> Pixels:
        """One image, uint8 [H, W, 3]; see :class:`Interleaved`."""
        return read_interleaved(self.images, int(self.rows[index]), share)

    def stamp(self, index: int) -> str:
        """What the source tells of an image without decoding it; empty where that is nothing."""
        return self.images.stamp(int(self.rows[index])) if isinstance(self.images, Stamped) else ""


def select_images(images: Images, rows: Int64s) -> Images:
    """The images at ``rows``: a copy where they are resident, a view where they stream."""
    if images.uniform is not None:
        return ResidentImages(images.uniform[rows])
    return SelectedImages(images, rows)


def concatenate(first: Dataset, second: Dataset) -> Dataset:
    """Two resident data sets of the same classes as one, for evaluation sets with open images.

    Raises:
        DataError: their classes or image sizes differ, they stream, or one has a truth and one has not.
    """
    one, two = first.images.uniform, second.images.uniform
    if first.class_names != second.class_names:
        raise DataError(f"{first.name} and {second.name} have different classes; they cannot be joined")
    if one is None or two is None or one.shape[1:] != two.shape[1:]:
        raise DataError(f"{first.name} and {second.name}: only resident images of one size can be joined")
    if (first.true_labels is None) != (second.true_labels is None):
        raise DataError(f"{first.name} and {second.name}: one has true labels, the other has not")
    truth = None
    if first.true_labels is not None and second.true_labels is not None:
        truth = np.concatenate([first.true_labels, second.true_labels])
    return replace(
        first,
        images=ResidentImages(np.concatenate([one, two])),
        labels=np.concatenate([first.labels, second.labels]),
        ids=np.concatenate([first.ids, second.ids]),
        true_labels=truth,
        faults=first.faults + second.faults,
        original_labels=None,
        trusted=None,
    )
