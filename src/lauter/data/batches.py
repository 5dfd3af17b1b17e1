"""Batches: which images come together in a step, and in which views.

A batch carries the stable index of each image and its pixels, nothing else: labels, beliefs and teacher
outputs are looked up by index by whoever may see them. The order of an epoch is a pure function of
(seed, epoch), so training continues in the middle of an epoch exactly where it stopped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lauter.data.counters import draw_order
from lauter.data.dataset import Images, Int64s, Pixels
from lauter.data.group import ALONE, Group
from lauter.data.reading import StreamReader, ViewReader
from lauter.data.views import IDENTITY, ViewRecipe, render_view
from lauter.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's images.

    Several processes take a step together: each has the index of all images of the step, but the views of its
    own part alone, b of B. What networks give for the part is put together by :meth:`gather`. One process has
    everything: b is B.

    Attributes:
        index: int64 [B] on the device; rows of the data set.
        views: one uint8 [b, 3, S, S] per view, or one float32 [B, D] where the batch is of features.
        view: number of the first view; with the index it says which picture this is, in any order of batches.
        group: the processes that share the batch.
    """

    index: Tensor
    views: tuple[Tensor, ...]
    view: int = 0
    group: Group = ALONE

    @property
    def images(self) -> Tensor:
        """The first view."""
        return self.views[0]

    @property
    def own(self) -> Tensor:
        """int64 [b] rows of the data set in this process's part: those that the views show."""
        return self.take_part(self.index)

    def take_part(self, values: Tensor) -> Tensor:
        """This process's part [b, ...] of values [B, ...]."""
        return values if self.group.size == 1 else values[self.group.part(len(self.index))]

    def gather(self, *values: Tensor) -> list[Tensor]:
        """What all processes have for their parts: of each [b, ...] a [B, ...]; gradients flow back."""
        return self.group.gather(values, len(self.index))

    def __len__(self) -> int:
        return len(self.index)


def _split_evenly(order: Int64s, batch_size: int) -> list[Int64s]:
    """Batches whose sizes differ by one at most, so that no epoch ends on a handful of images."""
    return np.array_split(order, max(1, -(-len(order) // batch_size)))


class ImageBatches:
    """Shuffled batches of views of the rows ``index`` of some images.

    Args:
        images: pixels; resident ones live on ``device`` as uint8, others are read by workers.
        index: rows that take part.
        batch_size: images in a step.
        recipes: one view per recipe and image.
        image_size: side of the views in pixels.
        seed: decides the order, and the views where they have no seed of their own.
        view_seed: decides the views, so that runs in another order meet the same ones; None takes ``seed``.
        cycle: after how many epochs the views come again; 0 draws new ones in every epoch.
        device: where the views are made.
        workers: reading processes for streamed images; 0 reads here.
        group: the processes that share every batch; each reads and makes the views of its part alone.

    Raises:
        ConfigError: a size or a number is out of its range.
        DataError: no row takes part.
    """

    def __init__(
        self,
        images: Images,
        index: Int64s,
        batch_size: int,
        recipes: tuple[ViewRecipe, ...],
        image_size: int,
        *,
        seed: int = 0,
        view_seed: int | None = None,
        cycle: int = 0,
        device: torch.device | str = "cpu",
        workers: int = 0,
        group: Group = ALONE,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more, not {batch_size}")
        if cycle < 0:
            raise ConfigError(f"cycle must be 1 or more epochs, or 0 for new views in each, not {cycle}")
        if not len(index):
            raise DataError("there is no image to train on: every one was left out")
        self.images = images
        self.index = np.asarray(index, dtype=np.int64)
        self.batch_size = batch_size
        self.recipes = recipes
        self.image_size = image_size
        self.seed = seed
        self.view_seed = seed if view_seed is None else view_seed
        self.cycle = cycle
        self.device = torch.device(device)
        self.workers = workers
        self.group = group
        pixels = images.uniform
        self._resident = None if pixels is None else make_resident(pixels, image_size, self.device)
        reader = ViewReader(images, recipes, image_size, self.view_seed)
        self._stream_reader = StreamReader(reader, workers, batch_size, self.device)

    def __len__(self) -> int:
        """Steps in an epoch."""
        return max(1, -(-len(self.index) // self.batch_size))

    @property
    def images_per_epoch(self) -> int:
        """Images in an epoch; a second view does not count."""
        return len(self.index)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from ``first_step`` on."""
        order = self.index[draw_order(self.seed, len(self.index), epoch)]
        steps = _split_evenly(order, self.batch_size)[first_step:]
        first_view = (epoch % self.cycle if self.cycle else epoch) * len(self.recipes)
        if self._resident is None:
            yield from self._stream(steps, first_view)
            return
        # The whole order goes to the device at once: a copy in every step would wait for all work before it.
        on_device = torch.from_numpy(order).to(self.device).tensor_split(len(self))[first_step:]
        for rows, index in zip(steps, on_device, strict=True):
            own = self.group.part(len(rows))
            pictures = [self._resident[index[own]]] * len(self.recipes)
            yield Batch(index, self._render(pictures, rows[own], first_view), first_view, self.group)

    def _render(
        self, pictures: Sequence[Tensor], rows: Int64s, first_view: int, cropped: bool = False
    ) -> tuple[Tensor, ...]:
        return tuple(
            render_view(picture, recipe, self.view_seed, rows, first_view + number, cropped=cropped)
            for number, (picture, recipe) in enumerate(zip(pictures, self.recipes, strict=True))
        )

    def _stream(self, steps: list[Int64s], first_view: int) -> Iterator[Batch]:
        parts = [rows[self.group.part(len(rows))] for rows in steps]
        read = self._stream_reader.read(parts, first_view)
        for rows, own, pictures in zip(steps, parts, read, strict=True):
            index = torch.from_numpy(rows).to(self.device)
            views = self._render(pictures, own, first_view, cropped=True)
            yield Batch(index, views, first_view, self.group)


class FeatureBatches:
    """Shuffled batches of stored features, for training a head alone.

    Args:
        features: float32 [N, D] on the device.
        index: rows that take part.
        batch_size: rows in a step.
        seed: decides the order.
    """

    def __init__(self, features: Tensor, index: Int64s, batch_size: int, *, seed: int = 0) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more, not {batch_size}")
        if not len(index):
            raise DataError("there is no labelled image to train a head on")
        self.features = features
        self.index = np.asarray(index, dtype=np.int64)
        self.batch_size = batch_size
        self.seed = seed

    def __len__(self) -> int:
        """Steps in an epoch."""
        return max(1, -(-len(self.index) // self.batch_size))

    @property
    def images_per_epoch(self) -> int:
        """Rows in an epoch."""
        return len(self.index)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from ``first_step`` on."""
        order = self.index[draw_order(self.seed, len(self.index), epoch)]
        for rows in _split_evenly(order, self.batch_size)[first_step:]:
            index = torch.from_numpy(rows).to(self.features.device)
            yield Batch(index, (self.features[index],))


Batches = ImageBatches | FeatureBatches


def read_in_order(
    images: Images,
    index: Int64s,
    batch_size: int,
    image_size: int,
    device: torch.device,
    workers: int = 0,
    view: tuple[ViewRecipe, int, int] = (IDENTITY, 0, 0),
) -> Iterator[Batch]:
    """Images at ``index``, in that order: what evaluation, feature extraction and banks read.

    Args:
        images: pixels.
        index: rows to read.
        batch_size: images at a time.
        image_size: side of the pictures in pixels.
        device: where they are made.
        workers: reading processes for streamed images; 0 reads here.
        view: (recipe, seed, view number), the very view that :class:`ImageBatches` would give; the unchanged
            image by default.

    Yields:
        Batches of one view.
    """
    rows = np.asarray(index, dtype=np.int64)
    steps = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    recipe, seed, number = view
    if images.uniform is not None:
        for step in steps:
            pixels = make_resident(images.uniform[step], image_size, device)
            picture = render_view(pixels, recipe, seed, step, number)
            yield Batch(torch.from_numpy(step).to(device), (picture,), number)
        return
    reader = StreamReader(ViewReader(images, (recipe,), image_size, seed), workers, batch_size, device)
    for step, pictures in zip(steps, reader.read(steps, number), strict=True):
        picture = render_view(pictures[0], recipe, seed, step, number, cropped=True)
        yield Batch(torch.from_numpy(step).to(device), (picture,), number)


def make_resident(pixels: Pixels, size: int, device: torch.device) -> Tensor:
    """Images of one size on the device as uint8 [N, 3, size, size]; resized once where they differ.

    The short side becomes ``size`` and the middle is kept, as for streamed images.
    """
    height, width = pixels.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    pixels = pixels[..., top : top + side, left : left + side]
    stored = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
    if side == size:
        return stored.to(device)
    parts = [
        torch.nn.functional.interpolate(
            part.float(), (size, size), mode="bilinear", antialias=True, align_corners=False
        )
        .round_()
        .clamp_(0, 255)
        .to(torch.uint8)
        for part in torch.split(stored, 1024)
    ]
    return torch.cat(parts).to(device) if parts else stored.new_zeros((0, 3, size, size)).to(device)
