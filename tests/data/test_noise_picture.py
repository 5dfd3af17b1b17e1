import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from lauter.data import Dataset, ResidentImages, draw_noise, noise_picture, write_noise_picture
from lauter.data.noise_picture import TILE
from lauter.errors import DataError


def make_noisy(names: tuple[str, ...] = ("cat", "dog"), count: int = 30, side: int = 8) -> Dataset:
    """Images by turns clean, closed and open, each of one colour of its own."""
    k = len(names)
    true = np.arange(count) % k
    labels = np.where(np.arange(count) % 3 == 1, (true + 1) % k, true)
    pixels = np.random.default_rng(0).integers(0, 200, size=(count, 3, 1, 1), dtype=np.uint8)
    return Dataset(
        name="noisy",
        images=ResidentImages(np.tile(pixels, (1, 1, side, side))),
        labels=labels,
        class_names=names,
        ids=np.array([f"image/{row}" for row in range(count)]),
        true_labels=np.where(np.arange(count) % 3 == 2, -1, true),
    )


def find_tiles(picture: Image.Image, columns: int) -> list[list[tuple[int, ...]]]:
    """Colours in the middle of all places for examples, band by band."""
    pixels = np.asarray(picture)
    bands = (picture.height - noise_picture._GAP) // noise_picture._BAND
    top = 2 * noise_picture._GAP + noise_picture._HEADING + TILE // 2
    left = noise_picture._GAP + TILE // 2
    return [
        [
            tuple(pixels[top + band * noise_picture._BAND, left + column * (TILE + 8)].tolist())
            for column in range(columns)
        ]
        for band in range(bands)
    ]


def test_each_kind_has_a_band_of_its_images() -> None:
    noisy = make_noisy()
    picture = draw_noise(noisy, columns=4)
    assert picture.mode == "RGB"
    assert picture.width == 8 + 4 * (TILE + 8)
    tiles = find_tiles(picture, 4)
    assert len(tiles) == 3
    colours = np.asarray(noisy.images.uniform)[:, :, 0, 0]
    for remainder, band in enumerate(tiles):
        known = {tuple(colour) for colour in colours[remainder::3].tolist()}
        assert set(band) <= known
        assert len(set(band)) == 4


def test_the_seed_chooses_the_examples() -> None:
    noisy = make_noisy()
    first, again, other = (np.asarray(draw_noise(noisy, columns=3, seed=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_kind_without_images_has_no_band_and_few_images_leave_places_empty() -> None:
    noisy = make_noisy()
    clean = noisy.with_labels(np.asarray(noisy.true_labels)).subset(np.array([0, 1, 3]))
    tiles = find_tiles(draw_noise(clean, columns=5), 5)
    assert len(tiles) == 1
    assert tiles[0][3:] == [(255, 255, 255)] * 2
    assert (255, 255, 255) not in tiles[0][:3]


def test_names_stand_below_and_wrong_ones_are_red() -> None:
    noisy = make_noisy()
    grey = np.asarray(noisy.images.uniform)[:, :1].repeat(3, axis=1)
    noisy = dataclasses.replace(noisy, images=ResidentImages(grey))

    def count_red(dataset: Dataset) -> int:
        pixels = np.asarray(draw_noise(dataset, columns=2)).astype(np.int64)
        return int((pixels[..., 0] - pixels[..., 1:].max(axis=2) > 50).sum())

    rows = np.arange(len(noisy))
    assert count_red(noisy.subset(rows[rows % 3 == 0])) == 0
    assert count_red(noisy.subset(rows[rows % 3 == 1])) > 10
    assert count_red(noisy.subset(rows[rows % 3 == 2])) > 10


@pytest.mark.parametrize("count", [2, 1000])
def test_any_names_and_any_number_of_classes(count: int) -> None:
    odd = ("\u732b\u732b", "line\nbreak\tand \x00", "x" * 5000, "<b>&amp;</b>", "", "K\u00e4se")
    names = tuple(f"{odd[number % len(odd)]}{number}" for number in range(count))
    picture = draw_noise(make_noisy(names, count=36))
    assert picture.height == 8 + 3 * noise_picture._BAND


def test_texts_are_escaped_and_shortened_to_the_width() -> None:
    font = ImageFont.load_default(12)
    assert noise_picture._shorten("given: cat", TILE, font) == "given: cat"
    assert noise_picture._shorten("a\nb\u732b", TILE, font) == r"a\nb\u732b"
    short = noise_picture._shorten("given: " + "abcdefgh" * 1000, TILE, font)
    assert short.startswith("given: abc")
    assert short.endswith("...")
    assert font.getlength(short) <= TILE
    assert noise_picture._shorten("wide", 1, font) == "..."


@pytest.mark.parametrize("shape", [(3, 300, 100), (3, 100, 300), (3, 5, 7)])
def test_images_of_any_shape_fit_their_tile(shape: tuple[int, int, int]) -> None:
    tile = noise_picture._fit_tile(np.full(shape, 7, dtype=np.uint8))
    assert tile.size == (TILE, TILE)
    assert tile.getpixel((TILE // 2, TILE // 2)) == (7, 7, 7)
    assert 0.3 < (np.asarray(tile) == 7).all(axis=2).mean() < 0.8


def test_small_images_keep_their_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(3, 32, 32), dtype=np.uint8)
    tile = np.asarray(noise_picture._fit_tile(pixels)).transpose(2, 0, 1)
    np.testing.assert_array_equal(tile, pixels.repeat(3, axis=1).repeat(3, axis=2))


def test_the_file_is_a_png_and_written_whole(tmp_path: Path) -> None:
    noisy = make_noisy()
    write_noise_picture(noisy, tmp_path / "shown" / "noise.png", columns=2, seed=4)
    assert [path.name for path in (tmp_path / "shown").iterdir()] == ["noise.png"]
    with Image.open(tmp_path / "shown" / "noise.png") as stored:
        assert stored.format == "PNG"
        np.testing.assert_array_equal(np.asarray(stored), np.asarray(draw_noise(noisy, columns=2, seed=4)))


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    noisy = make_noisy()
    with pytest.raises(DataError, match="noisy: the kinds of noise cannot be told without true labels"):
        draw_noise(noisy.without_truth())
    with pytest.raises(DataError, match="1 column and 1 image or more, not 0 and 30"):
        draw_noise(noisy, columns=0)
    with pytest.raises(DataError, match="not 8 and 0"):
        draw_noise(noisy.subset(np.arange(0)))
    with pytest.raises(DataError, match=r"noise\.jpg: the picture is written as PNG"):
        write_noise_picture(noisy, tmp_path / "noise.jpg")
    assert list(tmp_path.iterdir()) == []
