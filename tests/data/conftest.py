"""Small pictures for the data room's tests."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def draw_picture(seed: int, width: int = 16, height: int = 16) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def picture() -> Callable[..., Image.Image]:
    """Draw a random RGB picture by seed, width and height."""
    return draw_picture


@pytest.fixture
def class_folders(tmp_path: Path) -> Callable[..., Path]:
    """Write class folders with PNG pictures: ``class_folders(cat=3, dog=2)``."""

    def write(root: str | Path = "set", side: int = 16, **counts: int) -> Path:
        top = tmp_path / root
        for number, (name, count) in enumerate(counts.items()):
            (top / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                draw_picture(100 * number + i, side, side).save(top / name / f"{i}.png")
        return top

    return write
