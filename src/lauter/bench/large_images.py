"""How fast photographs come from disk: folder and Parquet, against torchvision's way of training on ImageNet.

All ways end with the same thing: a batch of random crops of 224 pixels, flipped or not, normalised, float32,
in the training process. The reference is the transform and the loader of torchvision's classification
reference with Pillow as backend, written here from its description.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torchvision.transforms as T
from rich.console import Console
from torch import Tensor, nn
from torchvision.datasets import ImageFolder

from lauter.bench.memory import read_tree_memory
from lauter.bench.records import Record
from lauter.data.batches import ImageBatches
from lauter.data.dataset import Images
from lauter.data.loading import EncodedImages
from lauter.data.opening import open_dataset
from lauter.data.sources.cells import ParquetCells
from lauter.data.sources.table import find_shards
from lauter.data.views import supervised_view
from lauter.errors import DataError, RunError
from lauter.files import atomic_path
from lauter.models.network import InputSpec, Network

SUITE = "speed"
SIZE = 224
BATCH = 64
COPIES = 4
"""How often each photograph is in the set: 256 of them are read in less time than workers take to start."""
PAUSE = 1.0
"""Seconds between two epochs."""
GROUP_ROWS = 10
WAYS = ("folder", "parquet", "reference")
"""This library from a folder and from Parquet, and the reference from the same folder."""


@dataclass(frozen=True)
class Photos:
    """The same photographs in two layouts.

    Attributes:
        folder: class folders with image files.
        shard: a Parquet file.
        count: of photographs.
    """

    folder: Path
    shard: Path
    count: int


def lay_out_photos(source: Path, work: Path, copies: int = COPIES) -> Photos:
    """Write photographs as files and as a Parquet file of small row groups, encoded as they are.

    Args:
        source: a folder of Parquet shards in the Hugging Face layout with a column image. Of its splits all
            photographs are taken, into two class folders by turns.
        work: where they are written; files that are there already are taken.
        copies: of every photograph.

    Raises:
        DataError: there are no such shards, or a cell holds no encoded image.
    """
    splits = find_shards(source)
    if not splits:
        raise DataError(f"{source}: no Parquet shards; expected a folder in the Hugging Face layout")
    folder, shard = work / "photos", work / "photos.parquet"
    encoded: list[bytes] = []
    for split, files in splits.items():
        for number, cell in enumerate(_read_cells(files)):
            if not cell:
                raise DataError(f"{source}: image {number} of split {split!r} is no encoded image")
            for copy in range(copies):
                path = folder / ("even", "odd")[number % 2] / f"{split}-{number:06d}-{copy}.jpg"
                if not path.exists():
                    with atomic_path(path) as temporary:
                        temporary.write_bytes(cell)
                encoded.append(cell)
    images = pa.array([{"bytes": cell, "path": None} for cell in encoded])
    with atomic_path(shard) as temporary:
        table = pa.table({"image": images})
        pq.write_table(table, temporary, row_group_size=GROUP_ROWS, use_dictionary=False)
    return Photos(folder, shard, len(encoded))


def measure_large_images(
    folder: Path,
    work: Path,
    repeats: int = 5,
    console: Console | None = None,
    *,
    workers: int | None = None,
    memory: bool = True,
) -> list[Record]:
    """Medians of interleaved epochs; every repeat is one epoch of each way, after one that is not counted.

    The Parquet file is read as one of a set far larger than memory is: no row group is kept. Nothing else
    should run on the machine meanwhile.

    Args:
        folder: photographs in the Hugging Face layout (see :func:`lay_out_photos`).
        work: photographs are laid out in there.
        repeats: how many.
        console: where progress is shown.
        workers: reading processes of every way; as many as cores where None.
        memory: whether peak memory is measured, in processes of its own.

    Returns:
        images_per_second of each way (median, smallest and largest), its peak memory beyond what its
        imports take, and the ratios of this library's ways to the reference.

    Raises:
        DataError: there are no photographs.
    """
    photos = lay_out_photos(folder, work)
    workers = workers or len(os.sched_getaffinity(0))
    epochs = {way: open_way(way, photos, workers) for way in WAYS}
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    for repeat in range(repeats + 1):
        # In turn another way is first; and workers that end with their epoch have time to leave.
        for way in (*WAYS[repeat % len(WAYS) :], *WAYS[: repeat % len(WAYS)]):
            time.sleep(PAUSE)
            began = time.perf_counter()
            epochs[way](repeat)
            rate = photos.count / (time.perf_counter() - began)
            if repeat:
                rates[way].append(rate)
            if console is not None:
                console.print(f"{repeat or 'warm-up'}/{repeats} {way}: {rate:,.0f} images/s")
    peaks = {way: measure_peak(way, photos, workers) for way in WAYS} if memory else {}
    return summarise(f"{photos.count} photographs, {SIZE} px, {workers} workers", rates, peaks)


def summarise(data: str, rates: dict[str, list[float]], peaks: dict[str, float]) -> list[Record]:
    """Records of medians, ranges, peaks and ratios.

    Args:
        data: what was read, and by how many workers.
        rates: images per second of every repeat, by way.
        peaks: MiB, by way.
    """
    middle = {way: float(np.median(values)) for way, values in rates.items()}
    values = {
        way: {
            "images_per_second": middle[way],
            "images_per_second_low": min(rates[way]),
            "images_per_second_high": max(rates[way]),
        }
        for way in rates
    }
    for way, peak in peaks.items():
        values[way]["peak_mib"] = peak
    records = [
        Record(SUITE, data, f"large images, {way}", 0, metric, value)
        for way, measured in values.items()
        for metric, value in measured.items()
    ]
    ratios = {
        "large_images_over_reference": middle["folder"] / middle["reference"],
        "large_images_parquet_over_reference": middle["parquet"] / middle["reference"],
    }
    return records + [Record(SUITE, data, name, 0, "ratio", ratio) for name, ratio in ratios.items()]


def open_way(way: str, photos: Photos, workers: int) -> Callable[[int], None]:
    """A function that goes through one epoch, by its number."""
    if way == "reference":
        return _open_reference(photos.folder, workers)
    images: Images
    if way == "folder":
        images = open_dataset(photos.folder, min_per_class=1).images
    else:
        cells = ParquetCells([photos.shard], "image", photos.shard.parent)
        cells.kept_bytes = 0
        rows = np.arange(photos.count)
        images = EncodedImages(cells, rows, rows.astype(np.str_))
    view = supervised_view("objects", SIZE)
    batches = ImageBatches(images, np.arange(len(images)), BATCH, (view,), SIZE, workers=workers)
    network = Network(_NoBackbone(), 0, InputSpec(SIZE))

    def run(epoch: int) -> None:
        for batch in batches.epoch(epoch):
            network.normalise(batch.images)

    return run


def measure_peak(way: str, photos: Photos, workers: int) -> float:
    """Peak memory of one epoch in MiB: the growth of a process of its own and its workers.

    Raises:
        RunError: that process failed.
    """
    words = [way, str(photos.folder), str(photos.shard), str(photos.count), str(workers)]
    script = f"from {__name__} import print_peak; print_peak(*{words!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise RunError(f"the epoch of {way} whose memory was to be measured failed: {last[0]}")
    return float(done.stdout.split()[-1])


def print_peak(way: str, folder: str, shard: str, count: str, workers: str) -> None:
    """Run one epoch while a thread looks at the memory, and print how much it grew at most, in MiB.

    Runs in a process of its own; all arguments are words of its command.
    """
    before, peak, ended = read_tree_memory(os.getpid()), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.02):
            peak = max(peak, read_tree_memory(os.getpid()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        open_way(way, Photos(Path(folder), Path(shard), int(count)), int(workers))(0)
    finally:
        ended.set()
        watcher.join()
    print(max(0.0, peak - before))


class _NoBackbone(nn.Module):
    """Stands for a network of which only the normalisation is run."""

    feature_size = 1

    def forward(self, images: Tensor, want_maps: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
        return images.mean((2, 3)), ()


def _open_reference(folder: Path, workers: int) -> Callable[[int], None]:
    transform = T.Compose(
        [
            T.RandomResizedCrop(SIZE, antialias=True),
            T.RandomHorizontalFlip(),
            T.PILToTensor(),
            T.ConvertImageDtype(torch.float),
            T.Normalize(InputSpec(SIZE).mean, InputSpec(SIZE).std),
        ]
    )
    loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
        ImageFolder(str(folder), transform),
        BATCH,
        shuffle=True,
        num_workers=workers,
        generator=torch.Generator(),
    )

    def run(epoch: int) -> None:
        for _images, _labels in loader:
            pass

    return run


def _read_cells(files: list[Path]) -> list[bytes]:
    """The encoded images of some shards."""
    return [
        cell["bytes"] if isinstance(cell, dict) else cell
        for file in files
        for cell in pq.read_table(file, columns=["image"]).column("image").to_pylist()
    ]
