"""Faults of pictures: each kind on pictures made to have it, and on ordinary ones that do not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lauter.auditing.image_faults import FaultRules, find_image_faults, measure_detail
from lauter.auditing.image_measures import ImageMeasures, measure_images
from lauter.data import open_dataset
from lauter.data.dataset import ImageFault, ResidentImages
from lauter.errors import ConfigError, DataError

Array = np.ndarray[Any, Any]


def draw_pictures(count: int = 30, side: int = 32) -> Array:
    """Coloured pictures with nothing wrong about them."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (count, 3, side // 4, side // 4))
    return np.repeat(np.repeat(coarse, 4, 2), 4, 3).astype(np.uint8)


def measure(pixels: Array) -> tuple[ImageMeasures, list[str]]:
    ids = [f"{number}.png" for number in range(len(pixels))]
    return measure_images(ResidentImages(pixels), ids), ids


def find_kinds(pixels: Array, rules: FaultRules | None = None) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for fault in find_image_faults(*measure(pixels), rules):
        assert not fault.dropped
        found.setdefault(int(fault.id.removesuffix(".png")), []).append(fault.fault)
    return found


def test_ordinary_pictures_have_no_fault() -> None:
    assert find_kinds(draw_pictures()) == {}


def test_blank_pictures() -> None:
    pixels = draw_pictures()
    pixels[3] = 0
    pixels[4] = np.array([200, 10, 30])[:, None, None]
    pixels[5] = np.random.default_rng(0).integers(120, 126, (3, 32, 32))
    assert find_kinds(pixels) == {3: ["blank"], 4: ["blank"], 5: ["blank"]}
    # A white page with one small mark is not blank.
    pixels[6] = 255
    pixels[6, :, 4:7, 4:7] = 0
    assert 6 not in find_kinds(pixels[6:])


def test_featureless_pictures() -> None:
    pixels = draw_pictures()
    run = np.linspace(60, 180, 32)
    pixels[7] = (run[:, None] + np.random.default_rng(0).normal(0, 4, (3, 32, 32))).astype(np.uint8)
    assert find_kinds(pixels) == {7: ["featureless"]}
    pixels[7, :, 10:20, 10:20] = 250
    assert find_kinds(pixels) == {}


def test_dark_and_bright_pictures() -> None:
    pixels = draw_pictures()
    pixels[1] //= 8
    pixels[2] = 255 - pixels[2] // 18
    pixels[8] = 0  # a small bright thing in the dark, as a digit is, is no fault
    pixels[8, :, 12:20, 12:20] = pixels[9, :, 12:20, 12:20] | 1
    assert find_kinds(pixels) == {1: ["dark"], 2: ["bright"]}


def test_the_odd_colour_among_others() -> None:
    pixels = draw_pictures()
    grey = np.repeat(pixels[:, :1], 3, axis=1)
    assert find_kinds(np.concatenate([pixels, grey[:2]])) == {30: ["greyscale"], 31: ["greyscale"]}
    assert find_kinds(np.concatenate([grey, pixels[:3]])) == {row: ["colour"] for row in (30, 31, 32)}
    assert find_kinds(np.concatenate([pixels, grey[:10]])) == {}
    assert find_kinds(np.concatenate([pixels, grey[:2]]), FaultRules(odd_share=0.01)) == {}


def test_aspect_and_size() -> None:
    measures, ids = measure(draw_pictures(5))
    heights, widths = np.array([100, 100, 24, 100, 0]), np.array([100, 301, 30, 300, 0])
    measures = replace(measures, heights=heights, widths=widths)
    found = [(fault.id, fault.fault, fault.detail) for fault in find_image_faults(measures, ids)]
    assert found == [
        ("1.png", "extreme aspect", "3.0 to 1"),
        ("2.png", "small", "24 pixels on its shorter side, usual are 100"),
    ]


def test_detail_is_what_a_plane_leaves() -> None:
    rng = np.random.default_rng(0)
    thumbnails = rng.integers(0, 256, (3, 3, 16, 16), dtype=np.uint8)
    design = np.array([[1.0, y, x] for y in range(16) for x in range(16)])
    for row, thumbnail in enumerate(thumbnails):
        left = []
        for channel in thumbnail.astype(float):
            fitted = design @ np.linalg.lstsq(design, channel.reshape(-1), rcond=None)[0]
            left.append(np.sqrt(np.mean((channel.reshape(-1) - fitted) ** 2)))
        np.testing.assert_allclose(measure_detail(thumbnails)[row], max(left), rtol=1e-5)


def test_notes_of_the_pass_come_first() -> None:
    pixels = draw_pictures()
    pixels[0] = 9
    measures, ids = measure(pixels)
    note = ImageFault("3.png", "unreadable", "broken", False)
    found = find_image_faults(replace(measures, notes=(note,)), ids)
    assert [(fault.id, fault.fault) for fault in found] == [("3.png", "unreadable"), ("0.png", "blank")]


def test_no_pictures_one_picture_and_all_alike() -> None:
    empty = np.empty((0, 3, 8, 8), dtype=np.uint8)
    assert find_kinds(empty) == {}
    assert find_kinds(draw_pictures(1)) == {}
    assert find_kinds(np.repeat(draw_pictures(1), 5, axis=0)) == {}
    assert set(find_kinds(np.zeros((3, 3, 1, 1), dtype=np.uint8))) == {0, 1, 2}


def test_opening_notes_an_extreme_aspect_whether_it_streams_or_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number, shape in enumerate([(40, 40, 3), (40, 121, 3), (40, 120, 3)]):
            pixels = rng.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    for size in (None, 32):
        data = open_dataset(tmp_path, image_size=size)
        assert (data.images.uniform is None) == (size is None)
        assert [(fault.id, fault.fault, fault.dropped) for fault in data.faults] == [
            ("a/1.png", "extreme aspect", False),
            ("b/1.png", "extreme aspect", False),
        ]


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"blank_spread": -1.0}, "blank_spread must be in 0..128"),
        ({"featureless_detail": 200.0}, "featureless_detail must be in 0..128"),
        ({"exposure_share": 0.5}, "exposure_share must be above 0.5"),
        ({"odd_share": 0.5}, "odd_share must be in 0..0.5"),
        ({"max_aspect": 1.0}, "max_aspect must be above 1"),
        ({"small_side": 2.0}, "small_side must be in 0..1"),
    ],
)
def test_rules_out_of_range(setting: dict[str, float], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        FaultRules(**setting)


def test_ids_must_fit() -> None:
    measures, _ = measure(draw_pictures(2))
    with pytest.raises(DataError, match="3 ids for the measures of 2 images"):
        find_image_faults(measures, ["a", "b", "c"])
