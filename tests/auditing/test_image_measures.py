"""The one pass: reference values by plain loops, resident as streamed, and images that cannot be read."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lauter.auditing.image_measures import join_measures, measure_images, shrink
from lauter.data import open_dataset
from lauter.data.dataset import ResidentImages, select_images
from lauter.errors import DataError

NAMES = ("heights", "widths", "hashes", "thumbnails", "spread", "dark_share", "bright_share", "colour")


class ListedImages:
    """Images of any sizes that stream."""

    uniform = None

    def __init__(self, images: list[np.ndarray[Any, Any]]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> np.ndarray[Any, Any]:
        return self.images[index]


def draw(height: int, width: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)


def name(count: int) -> list[str]:
    return [f"{number}.png" for number in range(count)]


def shrink_by_loops(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    height, width = pixels.shape[1:]
    result = np.zeros((3, 16, 16))
    for row in range(16):
        for column in range(16):
            for y in range(height):
                for x in range(width):
                    tall = min((row + 1) * height / 16, y + 1) - max(row * height / 16, y)
                    wide = min((column + 1) * width / 16, x + 1) - max(column * width / 16, x)
                    if tall > 0 and wide > 0:
                        share = tall * wide / (height / 16 * width / 16)
                        result[:, row, column] += share * pixels[:, y, x]
    return result


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 16), (7, 21), (1, 1), (40, 5)])
def test_thumbnails_are_means_of_areas(height: int, width: int) -> None:
    pixels = draw(height, width)
    np.testing.assert_allclose(shrink(pixels), shrink_by_loops(pixels), atol=1e-3)


def test_measures_by_plain_loops() -> None:
    images = [draw(9, 12), np.full((3, 5, 5), 40, np.uint8), np.full((3, 5, 6), 240, np.uint8)]
    images[0][:, :4] //= 8
    found = measure_images(ListedImages(images), name(3))
    for row, pixels in enumerate(images):
        values = pixels.astype(float)
        luma = [
            0.299 * values[0, y, x] + 0.587 * values[1, y, x] + 0.114 * values[2, y, x]
            for y in range(pixels.shape[1])
            for x in range(pixels.shape[2])
        ]
        spread = max(float(np.sqrt(np.mean((channel - channel.mean()) ** 2))) for channel in values)
        np.testing.assert_allclose(found.spread[row], spread, atol=1e-3)
        np.testing.assert_allclose(found.dark_share[row], np.mean([v <= 40.001 for v in luma]), atol=1e-6)
        np.testing.assert_allclose(found.bright_share[row], np.mean([v >= 239.999 for v in luma]), atol=1e-6)
        np.testing.assert_allclose(found.colour[row], (values.max(0) - values.min(0)).mean(), rtol=1e-5)
        assert (found.heights[row], found.widths[row]) == pixels.shape[1:]


def test_resident_images_measure_as_streamed_ones_do() -> None:
    pixels = np.stack([draw(20, 20, seed) for seed in range(150)])
    told: list[tuple[int, int]] = []
    resident = measure_images(
        ResidentImages(pixels), name(150), progress=lambda done, total: told.append((done, total))
    )
    streamed = measure_images(ListedImages(list(pixels)), name(150))
    for field in NAMES:
        np.testing.assert_allclose(getattr(resident, field), getattr(streamed, field), atol=1e-4)
    assert told[-1] == (150, 150)
    assert told == sorted(told)


def test_equal_pictures_hash_equally_and_others_do_not() -> None:
    one = draw(8, 6)
    other = one.copy()
    other[2, 7, 5] ^= 1
    found = measure_images(ListedImages([one, one.copy(), other, one.reshape(3, 6, 8)]), name(4))
    assert found.hashes[0] == found.hashes[1]
    assert len(set(found.hashes.tolist())) == 3


def test_large_images_are_measured_reduced() -> None:
    pixels = np.repeat(np.repeat(draw(8, 8), 80, 1), 100, 2)
    found = measure_images(ListedImages([pixels]), name(1))
    np.testing.assert_allclose(found.thumbnails[0], shrink_by_loops(pixels[:, ::20, ::25]), atol=1.5)
    assert (found.heights[0], found.widths[0]) == (640, 800)


def test_no_images_and_one_pixel() -> None:
    assert len(measure_images(ListedImages([]), [])) == 0
    found = measure_images(ListedImages([np.array([[[3]], [[2]], [[1]]], np.uint8)]), name(1))
    np.testing.assert_array_equal(found.thumbnails[0, :, 5, 5], [3, 2, 1])
    np.testing.assert_allclose(found.spread, 0)


def test_streamed_files_are_noted_for_what_decoding_changed(tmp_path: Path) -> None:
    picture = Image.fromarray(draw(40, 30).transpose(1, 2, 0))
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        picture.save(tmp_path / label / "plain.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a" / "turned.jpg", exif=exif)
    picture.convert("CMYK").save(tmp_path / "b" / "print.jpg")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    # Its header and its end are there and its middle is broken, so that opening takes it for whole.
    content = bytearray(buffer.getvalue())
    content[200:260] = bytes(60)
    (tmp_path / "b" / "broken.png").write_bytes(content)
    data = open_dataset(tmp_path)
    assert data.images.uniform is None
    found = measure_images(data.images, data.ids)
    notes = {(note.id, note.fault, note.dropped) for note in found.notes}
    assert {("a/turned.jpg", "rotated", False), ("b/print.jpg", "cmyk", False)} <= notes
    broken = data.ids.tolist().index("b/broken.png")
    assert not found.readable[broken]
    assert found.readable.sum() == 4
    assert {note.id for note in found.notes} == {"a/turned.jpg", "b/print.jpg", "b/broken.png"}
    some = measure_images(select_images(data.images, np.array([1])), ["a/turned.jpg"])
    assert [note.fault for note in some.notes] == ["rotated"]
    assert (some.heights[0], some.widths[0]) == (30, 40)


def test_joined_measures_are_those_of_all() -> None:
    images = [draw(8, 8, seed) for seed in range(5)]
    whole = measure_images(ListedImages(images), name(5))
    parts = [measure_images(ListedImages(part), name(len(part))) for part in (images[:2], images[2:])]
    joined = join_measures(*parts)
    for field in NAMES:
        np.testing.assert_array_equal(getattr(joined, field), getattr(whole, field))


def test_bad_input() -> None:
    with pytest.raises(DataError, match="2 ids for 1 images"):
        measure_images(ListedImages([draw(4, 4)]), name(2))
    found = measure_images(ListedImages([draw(4, 4)]), name(1))
    with pytest.raises(DataError, match="1 images must have 1 rows, not 2"):
        type(found)(**{**vars(found), "spread": np.zeros(2, np.float32)})
    with pytest.raises(DataError, match=r"not \[1, 3, 8, 8\]"):
        type(found)(**{**vars(found), "thumbnails": np.zeros((1, 3, 8, 8), np.uint8)})
