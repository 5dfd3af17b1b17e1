"""Batches: who comes when, resumable at any step, the same from memory, from disk and through workers."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lauter.data import batches as batches_module
from lauter.data.batches import (
    Batch,
    FeatureBatches,
    ImageBatches,
    make_resident,
    read_in_order,
)
from lauter.data.dataset import ResidentImages
from lauter.data.images import ImageError
from lauter.data.views import IDENTITY, ViewRecipe, render_view
from lauter.errors import ConfigError, DataError

CROP = ViewRecipe(pad=2, flip=0.5)


def forks(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test of worker processes: newer Pythons and small machines warn of those in general."""
    test = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")(test)
    return pytest.mark.filterwarnings("ignore:This DataLoader will create")(test)


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """Images of any size that are read one by one."""

    pictures: list[NDArray[np.uint8]]
    broken: int = -1

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def uniform(self) -> None:
        return None

    def read(self, index: int) -> NDArray[np.uint8]:
        if index == self.broken:
            raise ImageError("truncated", f"{index}.png: it ends early")
        return self.pictures[index]


def draw_pixels(count: int, height: int = 12, width: int = 12, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, height, width), dtype=np.uint8)


def draw_streamed(count: int, broken: int = -1) -> StreamedImages:
    sizes = np.random.default_rng(1).integers(9, 40, (count, 2))
    return StreamedImages(
        [draw_pixels(1, height, width, i)[0] for i, (height, width) in enumerate(sizes)], broken
    )


def make_batches(
    count: int = 23, batch_size: int = 5, recipes: tuple[ViewRecipe, ...] = (CROP,), seed: int = 3
) -> ImageBatches:
    images = ResidentImages(draw_pixels(50))
    index = np.random.default_rng(2).permutation(50)[:count]
    return ImageBatches(images, index, batch_size, recipes, 12, seed=seed)


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for one, two in zip(first, second, strict=True):
        torch.testing.assert_close(one.index, two.index, rtol=0, atol=0)
        assert len(one.views) == len(two.views)
        for a, b in zip(one.views, two.views, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def rows_of(batches: list[Batch]) -> list[int]:
    return [int(row) for batch in batches for row in batch.index]


@pytest.mark.parametrize(("count", "batch_size"), [(23, 5), (20, 5), (21, 5), (4, 5), (1, 1), (50, 49)])
def test_an_epoch_visits_every_row_once_in_batches_of_nearly_one_size(count: int, batch_size: int) -> None:
    batches = make_batches(count, batch_size)
    epoch = list(batches.epoch(0))
    assert sorted(rows_of(epoch)) == sorted(batches.index.tolist())
    assert len(epoch) == len(batches) == -(-count // batch_size)
    assert batches.images_per_epoch == count
    sizes = [len(batch) for batch in epoch]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_orders_and_views_differ_by_epoch_and_by_seed() -> None:
    batches = make_batches()
    orders = [rows_of(list(batches.epoch(epoch))) for epoch in range(4)]
    orders += [rows_of(list(make_batches(seed=4).epoch(0)))]
    assert len({tuple(order) for order in orders}) == 5
    by_row = []
    for epoch in range(2):
        pictures = {
            int(row): view
            for batch in batches.epoch(epoch)
            for row, view in zip(batch.index, batch.images, strict=True)
        }
        by_row.append(torch.stack([pictures[row] for row in sorted(pictures)]))
    assert not torch.equal(by_row[0], by_row[1])


def test_resuming_gives_exactly_the_tail() -> None:
    batches = make_batches(recipes=(CROP, CROP))
    whole = list(batches.epoch(2))
    for first in range(len(batches) + 1):
        assert_same(list(batches.epoch(2, first)), whole[first:])


def test_views_are_those_of_the_row_numbered_on_over_the_epochs() -> None:
    recipes = (CROP, IDENTITY, ViewRecipe(cutout=0.5))
    batches = make_batches(recipes=recipes)
    pixels = torch.from_numpy(draw_pixels(50))
    for epoch in (0, 4):
        for batch in batches.epoch(epoch):
            rows = batch.index.numpy()
            expected = tuple(
                render_view(pixels[rows], recipe, 3, rows, 3 * epoch + number)
                for number, recipe in enumerate(recipes)
            )
            assert_same([batch], [Batch(batch.index, expected)])
    torch.testing.assert_close(batch.images, batch.views[0], rtol=0, atol=0)


def test_two_views_by_one_recipe_differ() -> None:
    batch = next(iter(make_batches(recipes=(CROP, CROP)).epoch(0)))
    assert not torch.equal(batch.views[0], batch.views[1])


@forks
def test_streamed_images_are_the_same_with_and_without_workers() -> None:
    recipes = (ViewRecipe(area=(0.3, 1.0), flip=0.5, jitter=0.8, contrast=0.4), CROP)
    epochs, tails = [], []
    state = torch.get_rng_state()
    for workers in (0, 2):
        batches = ImageBatches(draw_streamed(20), np.arange(3, 20), 4, recipes, 16, seed=5, workers=workers)
        epochs.append(list(batches.epoch(1)))
        tails.append(list(batches.epoch(1, 2)))
    assert_same(epochs[0], epochs[1])
    assert_same(tails[0], epochs[0][2:])
    assert_same(tails[1], epochs[0][2:])
    torch.testing.assert_close(torch.get_rng_state(), state, rtol=0, atol=0)  # nobody's state was moved
    assert sorted(rows_of(epochs[0])) == list(range(3, 20))
    assert all(view.shape[1:] == (3, 16, 16) for batch in epochs[0] for view in batch.views)


@forks
@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_streamed_image_is_named_by_whoever_reads_it(workers: int) -> None:
    batches = ImageBatches(draw_streamed(9, broken=4), np.arange(9), 3, (CROP,), 16, workers=workers)
    with pytest.raises(ImageError, match=r"4\.png: it ends early"):
        list(batches.epoch(0))


def test_streamed_images_of_the_right_size_equal_resident_ones() -> None:
    pixels = draw_pixels(20)
    index = np.arange(20)
    streamed = ImageBatches(StreamedImages(list(pixels)), index, 6, (CROP, IDENTITY), 12, seed=1)
    resident = ImageBatches(ResidentImages(pixels), index, 6, (CROP, IDENTITY), 12, seed=1)
    assert_same(list(streamed.epoch(3)), list(resident.epoch(3)))


def resize_reference(picture: NDArray[np.uint8], size: int) -> NDArray[np.float64]:
    """Bilinear with antialiasing: a triangle as wide as the step, normalised; rows, then columns."""

    def weights(length: int) -> NDArray[np.float64]:
        scale = length / size
        width = max(scale, 1.0)
        matrix = np.zeros((size, length))
        for out in range(size):
            centre = (out + 0.5) * scale
            for place in range(length):
                matrix[out, place] = max(0.0, 1 - abs(place + 0.5 - centre) / width)
            matrix[out] /= matrix[out].sum()
        return matrix

    down, across = weights(picture.shape[1]), weights(picture.shape[2])
    return np.stack([down @ channel.astype(np.float64) @ across.T for channel in picture])


@pytest.mark.parametrize("side", [7, 12, 31])
def test_resident_images_of_another_size_are_resized_right(side: int) -> None:
    pixels = draw_pixels(3, side, side)
    found = make_resident(pixels, 12, torch.device("cpu"))
    assert found.dtype == torch.uint8
    for row in range(3):
        expected = torch.from_numpy(resize_reference(pixels[row], 12))
        torch.testing.assert_close(found[row].double(), expected, rtol=0, atol=0.5 + 1e-3)


def test_of_oblong_resident_images_the_middle_is_kept() -> None:
    pixels = draw_pixels(4, 12, 20)
    found = make_resident(pixels, 12, torch.device("cpu"))
    torch.testing.assert_close(found, torch.from_numpy(pixels[..., 4:16].copy()), rtol=0, atol=0)


def test_resident_images_are_resized_once() -> None:
    with patch.object(batches_module, "make_resident", wraps=make_resident) as resize:
        batches = ImageBatches(ResidentImages(draw_pixels(9, 20, 20)), np.arange(9), 4, (CROP,), 12)
        shapes = {batch.images.shape[1:] for epoch in range(3) for batch in batches.epoch(epoch)}
    assert shapes == {(3, 12, 12)}
    assert resize.call_count == 1


def test_pixels_that_cannot_be_written_to_are_taken_without_a_warning() -> None:
    pixels = draw_pixels(4)
    pixels.setflags(write=False)
    found = make_resident(pixels, 12, torch.device("cpu"))
    torch.testing.assert_close(found, torch.from_numpy(pixels.copy()), rtol=0, atol=0)


def test_no_image_at_all_keeps_its_shape() -> None:
    found = make_resident(draw_pixels(0, 20, 20), 12, torch.device("cpu"))
    assert found.shape == (0, 3, 12, 12)


@forks
@pytest.mark.parametrize("workers", [0, 2])
def test_reading_in_order(workers: int) -> None:
    index = np.array([7, 2, 2, 11, 0])
    streamed, pixels = draw_streamed(12), draw_pixels(12, 20, 20)
    for images in (streamed, ResidentImages(pixels)):
        found = list(read_in_order(images, index, 2, 16, torch.device("cpu"), workers))
        assert [len(batch) for batch in found] == [2, 2, 1]
        assert rows_of(found) == index.tolist()
        for batch in found:
            for row, picture in zip(batch.index.tolist(), batch.images, strict=True):
                alone = next(iter(read_in_order(images, np.array([row]), 1, 16, torch.device("cpu"))))
                torch.testing.assert_close(picture, alone.images[0], rtol=0, atol=0)


def test_feature_batches() -> None:
    features = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    batches = FeatureBatches(features, np.arange(5, 30), 8, seed=2)
    whole = list(batches.epoch(1))
    assert sorted(rows_of(whole)) == list(range(5, 30))
    assert len(batches) == len(whole) == 4
    assert batches.images_per_epoch == 25
    sizes = [len(batch) for batch in whole]
    assert max(sizes) - min(sizes) <= 1
    for batch in whole:
        torch.testing.assert_close(batch.images, features[batch.index], rtol=0, atol=0)
    assert_same(list(batches.epoch(1, 3)), whole[3:])
    orders = [tuple(rows_of(list(batches.epoch(epoch)))) for epoch in range(3)]
    assert all(a != b for a, b in pairwise(orders))


def test_nothing_to_train_on_is_refused() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    with pytest.raises(DataError, match="no image to train on"):
        ImageBatches(ResidentImages(draw_pixels(3)), nothing, 2, (CROP,), 12)
    with pytest.raises(DataError, match="no labelled image"):
        FeatureBatches(torch.zeros(3, 2), nothing, 2)


def test_a_batch_size_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size must be 1 or more, not 0"):
        ImageBatches(ResidentImages(draw_pixels(3)), np.arange(3), 0, (CROP,), 12)
    with pytest.raises(ConfigError, match="batch_size must be 1 or more, not -1"):
        FeatureBatches(torch.zeros(3, 2), np.arange(3), -1)
