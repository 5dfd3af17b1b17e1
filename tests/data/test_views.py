"""Views: replayable bit for bit, and right against plain loops written from the definitions."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lauter.data.counters import draw_uniforms
from lauter.data.views import (
    IDENTITY,
    VERSION,
    ViewRecipe,
    contrastive_view,
    draw_crop_boxes,
    render_view,
    supervised_view,
)
from lauter.errors import ConfigError

# Which draw decides what; written down again here, since a column that moved would change every view.
AREA, RATIO, TOP, LEFT, FLIP, JITTER, BRIGHTNESS, CONTRAST, SATURATION, HUE = range(10)
GREY, BLUR, SIGMA, HOLE_TOP, HOLE_LEFT = range(10, 15)

RECIPES = {
    "crop": ViewRecipe(pad=2),
    "flip": ViewRecipe(flip=0.5),
    "crop and flip": ViewRecipe(pad=3, flip=0.5),
    "cutout": ViewRecipe(cutout=0.4),
    "resized crop": ViewRecipe(area=(0.2, 1.0), flip=0.5),
    "jitter": ViewRecipe(jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    "grey": ViewRecipe(grey=0.5),
    "blur": ViewRecipe(blur=0.5, blur_sigma=(1.0, 20.0)),
    "supervised": supervised_view("objects", 16),
    "contrastive": dataclasses.replace(contrastive_view("objects", 224), blur_sigma=(1.0, 20.0)),
}

# Checksums of one view of fixed pictures by each recipe.
GOLDEN = {
    "crop": 854403,
    "flip": 698308,
    "crop and flip": 626404,
    "cutout": 240139,
    "resized crop": 56750,
    "jitter": 981615,
    "grey": 54760,
    "blur": 409900,
    "supervised": 577604,
    "contrastive": 596170,
}


def draw_images(count: int, size: int, seed: int = 0) -> Tensor:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    return torch.from_numpy(pixels)


def same(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_a_view_is_the_same_in_any_batch(recipe: ViewRecipe) -> None:
    images, index = draw_images(24, 16), np.arange(1000, 1024)
    whole = render_view(images, recipe, 7, index, 3)
    assert whole.dtype == torch.uint8
    assert whole.shape == images.shape
    order = np.random.default_rng(1).permutation(24)
    same(render_view(images[order], recipe, 7, index[order], 3), whole[order])
    for size in (1, 5, 7):
        parts = [
            render_view(images[start : start + size], recipe, 7, index[start : start + size], 3)
            for start in range(0, 24, size)
        ]
        same(torch.cat(parts), whole)
    same(render_view(images.contiguous(memory_format=torch.channels_last), recipe, 7, index, 3), whole)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_another_seed_view_or_index_gives_another_picture(recipe: ViewRecipe) -> None:
    images, index = draw_images(24, 16), np.arange(24)
    views = [
        render_view(images, recipe, 7, index, 3),
        render_view(images, recipe, 8, index, 3),
        render_view(images, recipe, 7, index, 4),
        render_view(images, recipe, 7, index + 100, 3),
    ]
    for i in range(4):
        for j in range(i):
            assert not torch.equal(views[i], views[j]), (i, j)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_the_source_images_are_left_alone(recipe: ViewRecipe) -> None:
    images = draw_images(6, 16)
    before = images.clone()
    render_view(images, recipe, 0, np.arange(6), 0)
    same(images, before)


def test_golden_pixels() -> None:
    """They may change only together with VERSION."""
    ramp = torch.arange(8 * 3 * 16 * 16).reshape(8, 3, 16, 16)
    images = (ramp * ramp // 7 % 256).to(torch.uint8)
    place = torch.arange(1, images.numel() + 1).reshape(images.shape)
    index = np.arange(8)
    found = {
        name: int((render_view(images, recipe, 11, index, 2).long() * place).sum() % 1_000_003)
        for name, recipe in RECIPES.items()
    }
    assert VERSION == 2
    assert found == GOLDEN


def test_identity_gives_the_images_themselves() -> None:
    images = draw_images(3, 8)
    assert render_view(images, IDENTITY, 5, np.arange(3), 1) is images
    assert supervised_view("none", 32) == IDENTITY


# --- geometry -------------------------------------------------------------------------------------------


def test_flip_mirrors_columns_of_the_images_that_drew_it() -> None:
    images, index = draw_images(40, 8), np.arange(40)
    same(render_view(images, ViewRecipe(flip=1.0), 0, index, 0), images.flip(3))
    flipped = draw_uniforms(3, index, 1, 16)[:, FLIP] < 0.3
    assert 0 < flipped.sum() < 40
    found = render_view(images, ViewRecipe(flip=0.3), 3, index, 1)
    for row in range(40):
        expected = [
            [[int(images[row, c, y, 7 - x if flipped[row] else x]) for x in range(8)] for y in range(8)]
            for c in range(3)
        ]
        assert found[row].tolist() == expected


def test_padded_crop_against_loops() -> None:
    size, pad = 8, 3
    images, index = draw_images(30, size), np.arange(30)
    found = render_view(images, ViewRecipe(pad=pad, flip=0.5), 5, index, 2)
    draws = draw_uniforms(5, index, 2, 16)
    shifts = set()
    for row in range(30):
        down = math.floor(draws[row, TOP] * (2 * pad + 1)) - pad
        right = math.floor(draws[row, LEFT] * (2 * pad + 1)) - pad
        shifts |= {down, right}
        for y in range(size):
            for x in range(size):
                source_y = y + down
                source_x = (size - 1 - x if draws[row, FLIP] < 0.5 else x) + right
                inside = 0 <= source_y < size and 0 <= source_x < size
                for channel in range(3):
                    expected = int(images[row, channel, source_y, source_x]) if inside else 0
                    assert int(found[row, channel, y, x]) == expected
    assert shifts == set(range(-pad, pad + 1))  # every shift is drawn


def test_crop_boxes_have_the_drawn_area_and_ratio() -> None:
    recipe = ViewRecipe(area=(0.1, 0.5))
    index = np.arange(5000)
    boxes, draws = draw_crop_boxes(recipe, 0, index, 4), draw_uniforms(0, index, 4, 16)
    for row in range(200):
        area = 0.1 + draws[row, AREA] * 0.4
        ratio = math.exp(math.log(3 / 4) + draws[row, RATIO] * (math.log(4 / 3) - math.log(3 / 4)))
        height, width = math.sqrt(area / ratio), math.sqrt(area * ratio)
        top, left = draws[row, TOP] * (1 - height), draws[row, LEFT] * (1 - width)
        np.testing.assert_allclose(boxes[row], [top, left, height, width], rtol=1e-12)
    assert (boxes >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 1 + 1e-12).all()


def test_a_crop_wider_than_the_image_is_cut_at_its_side() -> None:
    boxes = draw_crop_boxes(ViewRecipe(area=(0.9, 1.0), ratio=(2.0, 2.0)), 0, np.arange(50), 0)
    np.testing.assert_array_equal(boxes[:, 3], 1.0)
    assert (boxes[:, 0] + boxes[:, 2] <= 1).all()


def test_resized_crop_against_loops() -> None:
    """Exactly the bilinear sum with weights in 1/256; and within rounding of the float64 definition."""
    size = 8
    recipe = ViewRecipe(area=(0.2, 1.0), flip=0.5)
    images, index = draw_images(12, size), np.arange(12)
    found = render_view(images, recipe, 2, index, 1).long().numpy()
    boxes, draws = draw_crop_boxes(recipe, 2, index, 1), draw_uniforms(2, index, 1, 16)
    pixels = images.long().numpy()

    def place(start: float, extent: float, step: int) -> float:
        return min(max((start + (step + 0.5) / size * extent) * size - 0.5, 0.0), size - 1.0)

    for row in range(12):
        top, left, height, width = boxes[row]
        for y in range(size):
            for x in range(size):
                column = size - 1 - x if draws[row, FLIP] < 0.5 else x
                exact_y, exact_x = place(top, height, y), place(left, width, column)
                fixed_y, fixed_x = round(exact_y * 256), round(exact_x * 256)
                for channel in range(3):
                    picture = pixels[row, channel]

                    def mix(down: float, across: float, unit: float, picture: np.ndarray = picture) -> float:
                        """Bilinear sum at (down, across), both in 1/unit pixels, times unit squared."""
                        above, before = int(down // unit), int(across // unit)
                        below, behind = min(above + 1, size - 1), min(before + 1, size - 1)
                        a, b = down - above * unit, across - before * unit
                        upper = (unit - b) * picture[above, before] + b * picture[above, behind]
                        lower = (unit - b) * picture[below, before] + b * picture[below, behind]
                        return (unit - a) * upper + a * lower

                    value = found[row, channel, y, x]
                    assert value == (int(mix(fixed_y, fixed_x, 256)) + 32768) // 65536
                    # Each weight is off by 1/512 at most, so each axis adds half a level.
                    assert abs(value - mix(exact_y, exact_x, 1.0)) <= 1.5 + 1e-9


def test_what_a_reader_has_cropped_and_flipped_is_neither_again() -> None:
    images, index = draw_images(20, 8), np.arange(20)
    jitter = ViewRecipe(jitter=1.0, brightness=0.4, hue=0.1)
    crop = dataclasses.replace(jitter, area=(0.2, 0.9), flip=0.5)
    found = render_view(images, crop, 0, index, 0, cropped=True)
    same(found, render_view(images, jitter, 0, index, 0))
    same(render_view(images, ViewRecipe(flip=0.5), 0, index, 0, cropped=True), images)
    padded = ViewRecipe(pad=2, flip=0.5)  # a reader leaves it whole
    same(render_view(images, padded, 0, index, 0, cropped=True), render_view(images, padded, 0, index, 0))


def test_cutout_is_a_black_square_of_the_given_side() -> None:
    size, side = 16, 6
    images, index = torch.full((50, 3, size, size), 255, dtype=torch.uint8), np.arange(50)
    found = render_view(images, ViewRecipe(cutout=0.4), 4, index, 0)
    draws = draw_uniforms(4, index, 0, 16)
    whole = 0
    for row in range(50):
        top = math.floor(draws[row, HOLE_TOP] * size) - side // 2
        left = math.floor(draws[row, HOLE_LEFT] * size) - side // 2
        for y in range(size):
            for x in range(size):
                black = top <= y < top + side and left <= x < left + side
                assert found[row, :, y, x].tolist() == [0 if black else 255] * 3
        whole += int((found[row, 0] == 0).sum()) == side * side
    assert 10 < whole < 50  # most squares lie inside, some are cut by the border


# --- colour ---------------------------------------------------------------------------------------------


def colour_reference(image: Tensor, recipe: ViewRecipe, draws: np.ndarray) -> list[list[list[float]]]:
    """Hue, saturation, contrast, brightness of one image, pixel by pixel, unrounded float64."""
    luma = (0.299, 0.587, 0.114)
    jittered = draws[JITTER] < recipe.jitter

    def factor(column: int, strength: float) -> float:
        return 1 + strength * (2 * draws[column] - 1) if jittered else 1.0

    brightness = factor(BRIGHTNESS, recipe.brightness)
    contrast = factor(CONTRAST, recipe.contrast)
    saturation = 0.0 if draws[GREY] < recipe.grey else factor(SATURATION, recipe.saturation)
    angle = 2 * math.pi * recipe.hue * (2 * draws[HUE] - 1) if jittered else 0.0
    cos, sin = math.cos(angle), math.sin(angle)
    size = image.shape[-1]
    pixels = image.double().tolist()
    mean = 0.0
    for y in range(size):
        for x in range(size):
            mean += sum(weight * pixels[c][y][x] for c, weight in enumerate(luma)) / size**2
    result = [[[0.0] * size for _ in range(size)] for _ in range(3)]
    for y in range(size):
        for x in range(size):
            rgb = [pixels[c][y][x] for c in range(3)]
            grey = sum(weight * value for weight, value in zip(luma, rgb, strict=True))
            v = [value - grey for value in rgb]
            # Rodrigues: v cos + (k x v) sin + k (k . v)(1 - cos) about k = (1, 1, 1) / sqrt 3.
            cross = [(v[2] - v[1]) / math.sqrt(3), (v[0] - v[2]) / math.sqrt(3), (v[1] - v[0]) / math.sqrt(3)]
            along = sum(v) / 3
            for c in range(3):
                turned = v[c] * cos + cross[c] * sin + along * (1 - cos)
                coloured = saturation * turned + grey
                result[c][y][x] = brightness * (contrast * coloured + (1 - contrast) * mean)
    return result


COLOURS = {
    "brightness": ViewRecipe(jitter=1.0, brightness=0.6),
    "contrast": ViewRecipe(jitter=1.0, contrast=0.8),
    "saturation": ViewRecipe(jitter=1.0, saturation=0.9),
    "hue": ViewRecipe(jitter=1.0, hue=0.5),
    "grey": ViewRecipe(grey=0.5),
    "all": ViewRecipe(jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grey=0.2),
}


@pytest.mark.parametrize("recipe", COLOURS.values(), ids=COLOURS.keys())
def test_colours_against_loops(recipe: ViewRecipe) -> None:
    images, index = draw_images(10, 6), np.arange(10)
    found = render_view(images, recipe, 1, index, 5).double()
    draws = draw_uniforms(1, index, 5, 16)
    reference = [colour_reference(images[row], recipe, draws[row]) for row in range(10)]
    expected = torch.tensor(reference, dtype=torch.float64).clamp(0, 255)
    assert not torch.equal(found, images.double())
    # Half a level for the rounding, and what float32, 16-bit luma and the mean grey in 1/256 leave.
    torch.testing.assert_close(found, expected, rtol=0, atol=0.51)


def test_grey_is_grey() -> None:
    images, index = draw_images(20, 8), np.arange(20)
    found = render_view(images, ViewRecipe(grey=1.0), 0, index, 0)
    same(found[:, 0], found[:, 1])
    same(found[:, 0], found[:, 2])
    luma = 0.299 * images[:, 0].double() + 0.587 * images[:, 1].double() + 0.114 * images[:, 2].double()
    torch.testing.assert_close(found[:, 0].double(), luma, rtol=0, atol=0.51)


def test_a_grey_picture_has_no_hue_to_turn_and_no_colour_to_saturate() -> None:
    grey = draw_images(10, 8)[:, :1].expand(-1, 3, -1, -1).contiguous()
    recipe = ViewRecipe(jitter=1.0, saturation=0.9, hue=0.5)
    same(render_view(grey, recipe, 0, np.arange(10), 0), grey)


def test_jitter_and_grey_come_at_their_rates() -> None:
    count = 4000
    images = draw_images(1, 2).expand(count, -1, -1, -1).contiguous()
    index = np.arange(count)
    for recipe, rate in (
        (ViewRecipe(jitter=0.8, hue=0.5), 0.8),
        (ViewRecipe(grey=0.2), 0.2),
        (ViewRecipe(flip=0.3), 0.3),
        (ViewRecipe(blur=0.6, blur_sigma=(200.0, 200.0)), 0.6),
    ):
        changed = (render_view(images, recipe, 0, index, 0) != images).flatten(1).any(1).sum()
        assert abs(int(changed) - count * rate) < 5 * math.sqrt(count * rate * (1 - rate)), recipe


# --- blur -----------------------------------------------------------------------------------------------


def test_blur_against_loops() -> None:
    size = 9
    recipe = ViewRecipe(blur=0.7, blur_sigma=(5.0, 30.0))
    images, index = draw_images(8, size), np.arange(8)
    found = render_view(images, recipe, 3, index, 0)
    draws = draw_uniforms(3, index, 0, 16)
    chosen = draws[:, BLUR] < 0.7
    assert 0 < chosen.sum() < 8
    low, high = 5.0 * size / 224, 30.0 * size / 224
    radius = math.ceil(3 * high)

    def reflect(place: int) -> int:
        place = abs(place)
        return 2 * (size - 1) - place if place >= size else place

    for row in range(8):
        if not chosen[row]:
            same(found[row], images[row])
            continue
        sigma = low + draws[row, SIGMA] * (high - low)
        taps = [math.exp(-0.5 * (step / sigma) ** 2) for step in range(-radius, radius + 1)]
        total = sum(taps) ** 2
        for channel in range(3):
            pixels = images[row, channel].tolist()
            for y in range(size):
                for x in range(size):
                    value = 0.0
                    for i, down in enumerate(taps):
                        for j, across in enumerate(taps):
                            value += down * across * pixels[reflect(y + i - radius)][reflect(x + j - radius)]
                    assert abs(int(found[row, channel, y, x]) - value / total) <= 0.5 + 1e-3


def test_blur_keeps_an_even_picture_even() -> None:
    even = torch.full((4, 3, 12, 12), 137, dtype=torch.uint8)
    recipe = ViewRecipe(blur=1.0, blur_sigma=(20.0, 60.0))
    same(render_view(even, recipe, 0, np.arange(4), 0), even)


# --- recipes --------------------------------------------------------------------------------------------


def test_views_by_name() -> None:
    assert supervised_view("objects", 32) == ViewRecipe(pad=4, flip=0.5)
    assert supervised_view("digits", 8) == ViewRecipe(pad=1)
    assert supervised_view("objects", 224) == ViewRecipe(area=(0.08, 1.0), flip=0.5)
    assert supervised_view("digits", 224) == ViewRecipe(area=(0.6, 1.0))
    assert contrastive_view("objects", 32).blur == 0
    assert contrastive_view("objects", 224).blur == 0.5
    assert contrastive_view("digits", 28).flip == 0


def test_unknown_and_empty_augmentations_are_refused() -> None:
    with pytest.raises(ConfigError, match="none, digits or objects, not 'faces'"):
        supervised_view("faces", 32)
    with pytest.raises(ConfigError, match="none, digits or objects, not 'faces'"):
        contrastive_view("faces", 32)
    with pytest.raises(ConfigError, match="views that differ"):
        contrastive_view("none", 32)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"flip": 1.5}, "flip must be between 0 and 1, not 1.5"),
        ({"brightness": -0.1}, "brightness must be between"),
        ({"hue": 0.6}, "hue must be between 0 and 0.5, not 0.6"),
        ({"area": (0.0, 1.0)}, "area must be 0 < smallest"),
        ({"area": (0.5, 0.2)}, "area must be 0 < smallest"),
        ({"ratio": (2.0, 1.0)}, "ratio must be 0 < smallest"),
        ({"pad": -1}, "pad must be 0 or more pixels, not -1"),
        ({"pad": 4, "area": (0.5, 1.0)}, "takes one crop"),
        ({"blur_sigma": (0.0, 1.0)}, "blur_sigma must be 0 < smallest"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ViewRecipe(**setting)  # type: ignore[arg-type]


def test_keys_tell_recipes_apart() -> None:
    keys = [recipe.key() for recipe in [*RECIPES.values(), IDENTITY]]
    assert len(set(keys)) == len(keys)
    assert all(key.startswith(f"v{VERSION}:") for key in keys)
    assert ViewRecipe(flip=0.5).key() == ViewRecipe(flip=0.5).key()
