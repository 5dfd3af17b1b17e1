"""Crops: boxes against their definition, pixels against torchvision's functions and against Pillow."""

import io
import math

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as classic
import torchvision.transforms.v2.functional as v2
from numpy.typing import NDArray
from PIL import Image

from lauter.data.crops import Box, middle_box, place_box, resize_crop
from lauter.data.views import CropDraws, ViewRecipe, draw_crops


def draw_photo(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Smooth shapes and fine noise, through JPEG: what a camera gives, without one."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(rng.uniform(5, 90) * rows + rng.uniform(5, 90) * columns + c) for c in range(3)]
    pixels = 128 + 90 * np.stack(waves, axis=2) + rng.normal(0, 12, (height, width, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return np.array(Image.open(buffer))


def one_draw(area: float, ratio: float, top: float = 0.0, left: float = 0.0, flip: bool = False) -> CropDraws:
    values = (np.array([value]) for value in (area, ratio, top, left))
    return CropDraws(*values, np.array([flip]))


BOXES = [
    pytest.param(Box(3, 5, 100, 130), id="enlarged"),
    pytest.param(Box(10, 0, 260, 240), id="reduced"),
    pytest.param(Box(0, 0, 288, 384), id="whole"),
    pytest.param(Box(31, 47, 224, 224), id="as it is"),
    pytest.param(Box(200, 100, 1, 3), id="tiny"),
]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("flip", [False, True])
def test_pixels_equal_torchvisions_resized_crop_and_flip(box: Box, flip: bool) -> None:
    """The same filter on the same decoded bytes: no pixel differs."""
    for seed in range(3):
        picture = draw_photo(seed, 288, 384)
        pixels = torch.from_numpy(picture).permute(2, 0, 1)
        expected = v2.resized_crop(pixels, *box, size=[224, 224], antialias=True)
        expected = v2.horizontal_flip(expected) if flip else expected
        found = torch.from_numpy(resize_crop(picture, box, 224, flip=flip)).permute(2, 0, 1)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("flip", [False, True])
def test_pixels_are_those_of_pillow_but_for_one_rounding(box: Box, flip: bool) -> None:
    """Pillow weighs in 22 bits, torch in 15: a value may fall on the other side of a half, by one level."""
    picture = draw_photo(7, 288, 384)
    image = classic.resized_crop(Image.fromarray(picture), *box, size=[224, 224])
    expected = np.array(classic.hflip(image) if flip else image).astype(int)
    found = resize_crop(picture, box, 224, flip=flip).astype(int)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1)
    np.testing.assert_allclose(np.mean(found - expected), 0, atol=0.01)


def test_the_flip_is_of_the_crop() -> None:
    picture = draw_photo(1, 40, 60)
    plain = resize_crop(picture, Box(3, 5, 20, 30), 16)
    np.testing.assert_array_equal(resize_crop(picture, Box(3, 5, 20, 30), 16, flip=True), plain[:, ::-1])
    np.testing.assert_array_equal(picture, draw_photo(1, 40, 60))


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (10, 30, Box(0, 10, 10, 10)),
        (31, 10, Box(10, 0, 10, 10)),
        (10, 13, Box(0, 1, 10, 10)),
        (7, 7, Box(0, 0, 7, 7)),
    ],
)
def test_the_middle_is_the_largest_square(height: int, width: int, box: Box) -> None:
    assert middle_box(height, width) == box


def test_area_and_ratio_are_those_of_the_crop_in_the_picture() -> None:
    recipe = ViewRecipe(area=(0.08, 0.4))
    draws = draw_crops(recipe, 3, np.arange(500), 1)
    for place in range(500):
        _, _, height, width = place_box(draws, place, 600, 900)
        # Sides are rounded to whole pixels, and neither is cut here: 0.4 of the area fits at any ratio.
        np.testing.assert_allclose(height * width / (600 * 900), draws.area[place], rtol=0.01)
        np.testing.assert_allclose(width / height, draws.ratio[place], rtol=0.01)


def test_a_side_that_is_too_long_is_cut() -> None:
    assert place_box(one_draw(0.9, 4 / 3), 0, 300, 200) == Box(0, 0, 201, 200)
    assert place_box(one_draw(1.0, 3 / 4), 0, 200, 300) == Box(0, 0, 200, 212)
    assert place_box(one_draw(1e-9, 1.0), 0, 20, 20) == Box(0, 0, 1, 1)


def test_every_position_is_equally_probable_and_within_the_picture() -> None:
    recipe = ViewRecipe(area=(0.25, 0.2500001), ratio=(1.0, 1.0000001))
    draws = draw_crops(recipe, 0, np.arange(6000), 0)
    boxes = np.array([place_box(draws, place, 8, 8) for place in range(6000)])
    np.testing.assert_array_equal(boxes[:, 2:], 4)
    for column in (0, 1):
        counts = np.bincount(boxes[:, column], minlength=5)
        deviation = math.sqrt(6000 * 0.2 * 0.8)
        np.testing.assert_allclose(counts, np.full(5, 1200), atol=5 * deviation)
    last = one_draw(0.25, 1.0, top=1 - 2**-53, left=1 - 2**-53)
    assert place_box(last, 0, 8, 8) == Box(4, 4, 4, 4)
