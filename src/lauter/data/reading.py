"""Reading streamed images: decoded, cropped and flipped by worker processes, ahead of the steps.

A worker writes finished views, uint8 and pixel by pixel, into memory that it shares with the training process
and uses again and again. Nothing is made twice: neither floats nor copies travel between the processes.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lauter.data.crops import middle_box, place_box, resize_crop
from lauter.data.dataset import Images, Int64s, Pixels, read_interleaved
from lauter.data.views import CropDraws, ViewRecipe, draw_crops
from lauter.errors import DataError, RunError

CHUNK = 32
"""Images that a worker reads at a time; larger batches are put together from chunks."""
PREFETCH = 2
"""Chunks that wait for each worker, or are ready, beside the one that is taken."""

_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, eq=False)
class ViewReader:
    """Makes views of streamed images, as far as that is done one image at a time: decoding, crop and flip.

    Attributes:
        images: what is read.
        recipes: one view per recipe.
        size: S, side of the views in pixels.
        seed: decides crops and flips.
    """

    images: Images
    recipes: tuple[ViewRecipe, ...]
    size: int
    seed: int

    def read_into(self, views: Pixels, rows: Int64s, first_view: int) -> None:
        """Write views of some images.

        Args:
            views: uint8 [V, B, S, S, 3], is written to.
            rows: [B] rows of the images.
            first_view: number of the first view.

        Raises:
            DataError: an image cannot be read.
        """
        draws = [
            draw_crops(recipe, self.seed, rows, first_view + number)
            for number, recipe in enumerate(self.recipes)
        ]
        for place, row in enumerate(rows.tolist()):
            picture = read_interleaved(self.images, row, partial(self._share, draws, place))
            height, width = picture.shape[:2]
            for number, (recipe, drawn) in enumerate(zip(self.recipes, draws, strict=True)):
                box = place_box(drawn, place, height, width) if recipe.resizes else middle_box(height, width)
                # A padded crop comes on the device, before the flip.
                flip = not recipe.pad and bool(drawn.flip[place])
                views[number, place] = resize_crop(picture, box, self.size, flip=flip)

    def _share(self, draws: Sequence[CropDraws], place: int, height: int, width: int) -> float:
        """Share of an image's resolution below which one of its crops would have to be enlarged."""
        sides = [
            min(place_box(drawn, place, height, width)[2:]) if recipe.resizes else min(height, width)
            for recipe, drawn in zip(self.recipes, draws, strict=True)
        ]
        return self.size / min(sides)


class _Task(NamedTuple):
    """What a worker is asked for: these rows, into that slot."""

    slot: int
    rows: Int64s
    first_view: int


@dataclass(eq=False)
class _Tasks:
    """The tasks of the next pass; the loader asks anew for every pass."""

    tasks: list[_Task] = field(default_factory=list)

    def __iter__(self) -> Iterator[_Task]:
        return iter(self.tasks)


@dataclass(frozen=True, eq=False)
class _SlotWriter:
    """Reads in a worker, into slots of shared memory [slots, V, CHUNK, S, S, 3]."""

    reader: ViewReader
    slots: Tensor

    def __getitem__(self, task: _Task) -> DataError | None:
        """What torch's DataLoader calls.

        An error about the data is handed over, not raised: the loader would make a RuntimeError of it.
        """
        views = self.slots[task.slot, :, : len(task.rows)].numpy()
        try:
            self.reader.read_into(views, task.rows, task.first_view)
        except DataError as error:
            return error
        return None


class _Crew:
    """Worker processes with their shared memory; they stay for many passes."""

    def __init__(self, reader: ViewReader, workers: int, chunk: int) -> None:
        # One slot more than tasks are under way: the one that is being copied from.
        count = workers * PREFETCH + 1
        shape = (count, len(reader.recipes), chunk, reader.size, reader.size, 3)
        _check_shared_memory(int(np.prod(shape)), workers)
        self.slots = torch.empty(shape, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
        self.chunk = chunk
        self._tasks = _Tasks()
        self._loader: DataLoader[DataError | None] = DataLoader(
            _SlotWriter(reader, self.slots),  # type: ignore[arg-type]  # map-style by duck typing
            batch_size=None,
            sampler=self._tasks,
            num_workers=workers,
            prefetch_factor=PREFETCH,
            persistent_workers=True,
            worker_init_fn=_ignore_interrupt,
            generator=torch.Generator(),  # for seeds that no worker uses; else the global one would be moved
        )

    def read(self, steps: Sequence[Int64s], first_view: int, pinned: bool) -> Iterator[list[Tensor]]:
        """The views of each step, in order."""
        chunks = [rows[start:stop] for rows in steps for start, stop in self._cut(rows)]
        tasks = [_Task(number % len(self.slots), rows, first_view) for number, rows in enumerate(chunks)]
        self._tasks.tasks = tasks
        done, under_way = iter(self._loader), iter(tasks)
        _, count, _, size = self.slots.shape[:4]
        for rows in steps:
            views = _make_views(count, len(rows), size, pinned)
            for start, stop in self._cut(rows):
                _wait_for_chunk(done)
                views[:, start:stop] = self.slots[next(under_way).slot, :, : stop - start]
            yield [view.permute(0, 3, 1, 2) for view in views]

    def _cut(self, rows: Int64s) -> list[tuple[int, int]]:
        """Where the chunks of a step begin and end."""
        starts = range(0, len(rows), self.chunk)
        return [(start, min(start + self.chunk, len(rows))) for start in starts]


class StreamReader:
    """Views of streamed images, batch by batch, read ahead by workers.

    The workers are started by the first pass and stay for those after it. They end with the reader.

    Args:
        reader: makes the views.
        workers: reading processes; 0 reads here.
        batch_size: largest number of images in a step.
        device: where the views go.
    """

    def __init__(self, reader: ViewReader, workers: int, batch_size: int, device: torch.device) -> None:
        self.reader = reader
        self.workers = workers
        self.device = device
        self._chunk = min(CHUNK, batch_size)
        self._idle: _Crew | None = None

    def read(self, steps: Sequence[Int64s], first_view: int) -> Iterator[tuple[Tensor, ...]]:
        """One pass.

        Args:
            steps: rows of each step, [B] each.
            first_view: number of the first view.

        Yields:
            The views of each step, uint8 [B, 3, S, S] on the device, in channels_last.

        Raises:
            DataError: an image cannot be read; names its id.
            RunError: a worker has ended, or there is too little shared memory.
        """
        if not len(steps):
            return
        pinned = self.device.type == "cuda"
        passes = self._read_here if self.workers == 0 else self._read_ahead
        for views in passes(steps, first_view, pinned):
            yield tuple(view.to(self.device, non_blocking=pinned) for view in views)

    def _read_here(self, steps: Sequence[Int64s], first_view: int, pinned: bool) -> Iterator[list[Tensor]]:
        for rows in steps:
            views = _make_views(len(self.reader.recipes), len(rows), self.reader.size, pinned)
            self.reader.read_into(views.numpy(), rows, first_view)
            yield [view.permute(0, 3, 1, 2) for view in views]

    def _read_ahead(self, steps: Sequence[Int64s], first_view: int, pinned: bool) -> Iterator[list[Tensor]]:
        # Taken, so that a second pass that begins before this one ends has workers of its own.
        crew, self._idle = self._idle, None
        crew = crew or _Crew(self.reader, self.workers, self._chunk)
        try:
            yield from crew.read(steps, first_view, pinned)
        except RunError:
            raise
        except BaseException:
            self._idle = crew
            raise
        self._idle = crew


def _make_views(count: int, images: int, size: int, pinned: bool) -> Tensor:
    """Memory for the views of a step, [V, B, S, S, 3]."""
    return torch.empty((count, images, size, size, 3), dtype=torch.uint8, pin_memory=pinned)


def _wait_for_chunk(done: Iterator[DataError | None]) -> None:
    """Wait for the next chunk in order, and raise what went wrong with it."""
    try:
        error = next(done)
    except RuntimeError as lost:  # the loader's way to tell that a process is gone
        raise RunError(
            f"a process that reads images has ended ({str(lost).splitlines()[0]}); where memory was short, "
            "take fewer --runtime.workers, or 0 to read without processes"
        ) from lost
    if error is not None:
        raise error


def _check_shared_memory(needed: int, workers: int) -> None:
    """Refuse what does not fit: a process that writes beyond the end is killed without a word."""
    if not _SHARED_MEMORY.is_dir():
        return
    stat = os.statvfs(_SHARED_MEMORY)
    free = stat.f_bavail * stat.f_frsize
    if free < needed:
        raise RunError(
            f"{workers} reading processes share {needed / 2**20:,.0f} MiB with this one, and "
            f"{_SHARED_MEMORY} has {free / 2**20:,.0f} MiB free; enlarge it (in a container: --shm-size), "
            "take fewer --runtime.workers, or 0 to read without processes"
        )


def _ignore_interrupt(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the training process alone decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
