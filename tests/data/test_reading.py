"""Streamed views: those that the counters name, whoever reads them, in whatever chunks."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as v2
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lauter.data import open_dataset
from lauter.data import reading as reading_module
from lauter.data.batches import ImageBatches
from lauter.data.crops import middle_box, place_box, resize_crop
from lauter.data.dataset import ResidentImages, select_images
from lauter.data.images import ImageError, decode_image
from lauter.data.reading import StreamReader, ViewReader
from lauter.data.views import IDENTITY, ViewRecipe, draw_crops
from lauter.errors import RunError

CPU = torch.device("cpu")
CROP = ViewRecipe(area=(0.2, 0.6), flip=0.5)
PADDED = ViewRecipe(pad=2, flip=0.5)
SIZE = 16


def forks(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test of worker processes: newer Pythons and small machines warn of those in general."""
    test = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")(test)
    return pytest.mark.filterwarnings("ignore:This DataLoader will create")(test)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of many sizes; one may be broken, one may take its process with it."""

    count: int = 40
    broken: int = -1
    deadly: int = -1

    def __len__(self) -> int:
        return self.count

    @property
    def uniform(self) -> None:
        return None

    def read(self, index: int) -> NDArray[np.uint8]:
        if index == self.broken:
            raise ImageError("truncated", f"{index}.jpg: it ends early")
        if index == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        rng = np.random.default_rng(index)
        height, width = rng.integers(9, 40, 2)
        return rng.integers(0, 256, (3, height, width), dtype=np.uint8)


def make_reader(
    images: Pictures, workers: int, recipes: tuple[ViewRecipe, ...] = (CROP,), batch_size: int = 8
) -> StreamReader:
    return StreamReader(ViewReader(images, recipes, SIZE, 9), workers, batch_size, CPU)


def expected_view(images: Pictures, row: int, recipe: ViewRecipe, view: int) -> Tensor:
    picture = images.read(row).transpose(1, 2, 0)
    draws = draw_crops(recipe, 9, np.array([row]), view)
    box = place_box(draws, 0, *picture.shape[:2]) if recipe.resizes else middle_box(*picture.shape[:2])
    flip = bool(draws.flip[0]) and not recipe.pad
    return torch.from_numpy(resize_crop(picture, box, SIZE, flip=flip)).permute(2, 0, 1)


def assert_views(found: list[tuple[Tensor, ...]], steps: list[NDArray[np.int64]], view: int) -> None:
    assert [len(views[0]) for views in found] == [len(step) for step in steps]
    for views, step in zip(found, steps, strict=True):
        for number, (pictures, recipe) in enumerate(zip(views, (CROP, IDENTITY, PADDED), strict=False)):
            assert pictures.dtype == torch.uint8
            assert pictures.is_contiguous(memory_format=torch.channels_last)
            for picture, row in zip(pictures, step.tolist(), strict=True):
                wanted = expected_view(Pictures(), row, recipe, view + number)
                torch.testing.assert_close(picture, wanted, rtol=0, atol=0)


@forks
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_views_are_those_of_the_counters(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of workers and of chunks in a step, and pass after pass."""
    monkeypatch.setattr(reading_module, "CHUNK", 5)
    steps = [np.array([3, 1, 4]), np.arange(20), np.array([39, 0, 17, 5, 5])]
    reader = make_reader(Pictures(), workers, (CROP, IDENTITY, PADDED), batch_size=20)
    state = torch.get_rng_state()
    for view in (0, 3):
        assert_views(list(reader.read(steps, view)), steps, view)
    torch.testing.assert_close(torch.get_rng_state(), state, rtol=0, atol=0)  # nobody's state was moved


@forks
def test_passes_that_end_early_or_overlap_change_nothing() -> None:
    steps = [np.arange(start, start + 4) for start in range(0, 40, 4)]
    reader = make_reader(Pictures(), 1, batch_size=4)
    for _ in zip(range(2), reader.read(steps, 7), strict=False):
        pass
    first, second = reader.read(steps, 0), reader.read(steps[::-1], 1)
    pairs = list(zip(first, second, strict=True))
    assert_views([one for one, _ in pairs], steps, 0)
    assert_views([two for _, two in pairs], steps[::-1], 1)


@forks
@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named_and_the_next_pass_goes_on(workers: int) -> None:
    reader = make_reader(Pictures(broken=4), workers)
    with pytest.raises(ImageError, match=r"4\.jpg: it ends early"):
        list(reader.read([np.arange(8), np.arange(8, 16)], 0))
    steps = [np.arange(8, 16)]
    assert_views(list(reader.read(steps, 0)), steps, 0)


@forks
def test_a_worker_that_is_gone_is_told() -> None:
    with pytest.raises(RunError, match=r"a process that reads images has ended .*--runtime\.workers"):
        list(make_reader(Pictures(deadly=3), 1).read([np.arange(8)], 0))


def test_too_little_shared_memory_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(reading_module, "_SHARED_MEMORY", tmp_path)
    small = SimpleNamespace(f_bavail=1, f_frsize=4096)
    monkeypatch.setattr(reading_module.os, "statvfs", lambda path: small)
    with pytest.raises(RunError, match=r"2 reading processes share .* MiB .*--shm-size"):
        list(make_reader(Pictures(), 2).read([np.arange(8)], 0))


def test_no_step_starts_nothing() -> None:
    assert list(make_reader(Pictures(deadly=0), 2).read([], 0)) == []


def save_photo(path: Path, seed: int, width: int, height: int, orientation: int = 1) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(rng.uniform(3, 12) * rows + rng.uniform(3, 12) * columns + c) for c in range(3)]
    pixels = np.clip(128 + 90 * np.stack(waves, axis=2), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, quality=95, exif=exif)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two classes of four photographs, two of them lying on their side."""
    for number in range(8):
        path = tmp_path / "set" / ("cat", "dog")[number % 2] / f"{number}.jpg"
        save_photo(path, number, 640, 480 + 16 * number, orientation=6 if number in (2, 5) else 1)
    return tmp_path / "set"


def test_a_batch_of_photographs_equals_torchvisions_functions(photographs: Path) -> None:
    """From the file to the tensor: the same crop and flip of the same decoded image, bit for bit."""
    data = open_dataset(photographs)
    recipe = ViewRecipe(area=(0.08, 1.0), flip=0.5)
    for batch in ImageBatches(data.images, np.arange(8), 3, (recipe,), 64, seed=4).epoch(2):
        draws = draw_crops(recipe, 4, batch.index.numpy(), 2)
        for place, row in enumerate(batch.index.tolist()):
            pixels = torch.from_numpy(decode_image(photographs / data.ids[row])[0])
            box = place_box(draws, place, *pixels.shape[1:])
            expected = v2.resized_crop(pixels, *box, size=[64, 64], antialias=True)
            expected = v2.horizontal_flip(expected) if draws.flip[place] else expected
            torch.testing.assert_close(batch.images[place], expected, rtol=0, atol=0)


def test_reduced_decoding_gives_nearly_the_same_views_of_fewer_pixels(
    photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_dataset(photographs)
    reduced = open_dataset(photographs, reduced_decoding=True)
    assert reduced.source["reduced_decoding"] is True
    assert whole.fingerprint_images() != reduced.fingerprint_images()
    recipes = (ViewRecipe(area=(0.5, 0.9), flip=0.5), IDENTITY)
    seen = []
    keep = reading_module.read_interleaved

    def note_shape(*arguments: object) -> NDArray[np.uint8]:
        picture = keep(*arguments)  # type: ignore[arg-type]
        seen.append(picture.shape[:2])
        return picture

    monkeypatch.setattr(reading_module, "read_interleaved", note_shape)
    views = []
    for data in (whole, reduced):
        images = select_images(data.images, np.arange(8))
        reader = StreamReader(ViewReader(images, recipes, 96, 1), 0, 8, CPU)
        (batch,) = reader.read([np.arange(8)], 0)
        views.append(batch)
    sizes = [(640, 480 + 16 * n) if n in (2, 5) else (480 + 16 * n, 640) for n in range(8)]
    halves = [(height // 2, width // 2) for height, width in sizes]
    order = [int(Path(name).stem) for name in whole.ids]
    assert seen[:8] == [sizes[number] for number in order]
    # Every crop is more than twice as large as the view, and some are more than four times so.
    quarters = [(height // 2, width // 2) for height, width in halves]
    for found, number in zip(seen[8:], order, strict=True):
        assert found in (halves[number], quarters[number])
    for one, other in zip(*views, strict=True):
        difference = (one.float() - other.float()).abs()
        np.testing.assert_array_less(difference.mean((1, 2, 3)).numpy(), 6.0)
        assert difference.max() > 0


def test_nothing_is_reduced_below_what_a_view_needs(photographs: Path) -> None:
    images = open_dataset(photographs, reduced_decoding=True).images
    (one,) = StreamReader(ViewReader(images, (IDENTITY,), 300, 1), 0, 8, CPU).read([np.arange(8)], 0)
    full = replace(images, reduced=False)  # type: ignore[type-var]
    (two,) = StreamReader(ViewReader(full, (IDENTITY,), 300, 1), 0, 8, CPU).read([np.arange(8)], 0)
    torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_images_held_in_memory_may_be_reduced_too(photographs: Path) -> None:
    whole = open_dataset(photographs, image_size=60)
    reduced = open_dataset(photographs, image_size=60, reduced_decoding=True)
    assert isinstance(whole.images, ResidentImages)
    assert isinstance(reduced.images, ResidentImages)
    difference = np.abs(whole.images.pixels.astype(float) - reduced.images.pixels)
    np.testing.assert_array_less(difference.mean((1, 2, 3)), 6.0)
    assert difference.max() > 0
