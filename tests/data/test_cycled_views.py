"""Views that come again, views with a seed of their own, and the number by which a batch's view is known."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lauter.data.batches import Batch, FeatureBatches, ImageBatches, read_in_order
from lauter.data.dataset import Images, ResidentImages
from lauter.data.views import IDENTITY, ViewRecipe, render_view
from lauter.errors import ConfigError

PADDED = ViewRecipe(pad=2, flip=0.5)
RESIZED = ViewRecipe(area=(0.2, 0.8), flip=0.5)
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 3, 14, 14), dtype=np.uint8)
CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """The same pixels, read one by one."""

    pixels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def uniform(self) -> None:
        return None

    def read(self, index: int) -> NDArray[np.uint8]:
        return self.pixels[index]


RESIDENT, STREAMED = ResidentImages(PIXELS), StreamedImages(PIXELS)


def make_batches(
    recipes: tuple[ViewRecipe, ...] = (PADDED,),
    *,
    images: Images = RESIDENT,
    seed: int = 3,
    view_seed: int | None = None,
    cycle: int = 0,
) -> ImageBatches:
    index = np.arange(2, 19)
    return ImageBatches(images, index, 5, recipes, 14, seed=seed, view_seed=view_seed, cycle=cycle)


def pictures_by_row(batches: list[Batch], view: int = 0) -> torch.Tensor:
    pairs = [pair for batch in batches for pair in zip(batch.index.tolist(), batch.views[view], strict=True)]
    return torch.stack([picture for _, picture in sorted(pairs, key=lambda pair: pair[0])])


def rows_of(batches: list[Batch]) -> list[int]:
    return [row for batch in batches for row in batch.index.tolist()]


@pytest.mark.parametrize("recipes", [(PADDED,), (PADDED, RESIZED)])
@pytest.mark.parametrize("images", [RESIDENT, STREAMED])
def test_views_come_again_after_a_cycle_and_orders_do_not(
    images: Images, recipes: tuple[ViewRecipe, ...]
) -> None:
    batches = make_batches(recipes, images=images, cycle=3)
    epochs = [list(batches.epoch(epoch)) for epoch in range(7)]
    free = [list(make_batches(recipes, images=images).epoch(epoch)) for epoch in range(3)]
    for number, epoch in enumerate(epochs):
        for view in range(len(recipes)):
            expected = pictures_by_row(free[number % 3], view)
            torch.testing.assert_close(pictures_by_row(epoch, view), expected, rtol=0, atol=0)
        assert [batch.view for batch in epoch] == [number % 3 * len(recipes)] * len(epoch)
    assert len({tuple(rows_of(epoch)) for epoch in epochs}) == 7


def test_without_a_cycle_every_epoch_has_views_of_its_own() -> None:
    for recipes in ((PADDED,), (PADDED, PADDED)):
        views = [batch.view for epoch in range(4) for batch in make_batches(recipes).epoch(epoch)]
        assert views == [epoch * len(recipes) for epoch in range(4) for _ in range(4)]


@pytest.mark.parametrize("images", [RESIDENT, STREAMED])
@pytest.mark.parametrize("recipe", [PADDED, RESIZED])
def test_the_view_seed_decides_the_pictures_and_the_seed_the_order(
    images: Images, recipe: ViewRecipe
) -> None:
    one = list(make_batches((recipe,), images=images, seed=1, view_seed=9).epoch(2))
    two = list(make_batches((recipe,), images=images, seed=2, view_seed=9).epoch(2))
    assert rows_of(one) != rows_of(two)
    torch.testing.assert_close(pictures_by_row(one), pictures_by_row(two), rtol=0, atol=0)
    plain = list(make_batches((recipe,), images=images, seed=1).epoch(2))
    assert rows_of(plain) == rows_of(one)
    assert not torch.equal(pictures_by_row(plain), pictures_by_row(one))
    own = list(make_batches((recipe,), images=images, seed=1, view_seed=1).epoch(2))
    torch.testing.assert_close(pictures_by_row(own), pictures_by_row(plain), rtol=0, atol=0)


def test_a_view_seed_of_zero_is_a_seed() -> None:
    zero, plain = make_batches(view_seed=0), make_batches(seed=0)
    torch.testing.assert_close(
        pictures_by_row(list(zero.epoch(0))), pictures_by_row(list(plain.epoch(0))), rtol=0, atol=0
    )


def test_a_resumed_epoch_keeps_its_view() -> None:
    batches = make_batches(cycle=2)
    whole, tail = list(batches.epoch(5)), list(batches.epoch(5, 2))
    assert [batch.view for batch in tail] == [1, 1]
    for one, two in zip(whole[2:], tail, strict=True):
        torch.testing.assert_close(one.images, two.images, rtol=0, atol=0)


@pytest.mark.parametrize("images", [RESIDENT, STREAMED])
@pytest.mark.parametrize("recipe", [PADDED, RESIZED, IDENTITY])
@pytest.mark.parametrize("size", [14, 10])
def test_reading_in_order_gives_the_views_of_training(images: Images, recipe: ViewRecipe, size: int) -> None:
    index = np.arange(2, 19)
    trained = ImageBatches(images, index, 5, (recipe,), size, view_seed=7).epoch(4)
    read = list(read_in_order(images, index, 6, size, CPU, view=(recipe, 7, 4)))
    torch.testing.assert_close(pictures_by_row(read), pictures_by_row(list(trained)), rtol=0, atol=0)
    assert rows_of(read) == index.tolist()
    assert [batch.view for batch in read] == [4, 4, 4]


def test_reading_in_order_gives_the_image_itself_by_default() -> None:
    (batch,) = read_in_order(RESIDENT, np.array([4, 1]), 8, 14, CPU)
    torch.testing.assert_close(batch.images, torch.from_numpy(PIXELS[[4, 1]]), rtol=0, atol=0)
    assert batch.view == 0
    rendered = render_view(batch.images, PADDED, 7, np.array([4, 1]), 2)
    (viewed,) = read_in_order(RESIDENT, np.array([4, 1]), 8, 14, CPU, view=(PADDED, 7, 2))
    torch.testing.assert_close(viewed.images, rendered, rtol=0, atol=0)


def test_batches_of_features_have_view_zero() -> None:
    batches = FeatureBatches(torch.zeros(6, 2), np.arange(6), 4)
    assert [batch.view for batch in batches.epoch(3)] == [0, 0]


def test_a_cycle_below_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cycle must be 1 or more epochs, or 0 .* not -1"):
        make_batches(cycle=-1)
