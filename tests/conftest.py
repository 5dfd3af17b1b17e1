"""Fixtures of all rooms."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:  # imported by the fixtures themselves: rooms that do not use them need not wait
    from lauter.config import FitConfig
    from lauter.pipeline import FitResult

MICRO = (
    *("--student", "resnet8", "--teacher", "resnet8", "--holdout", "0.2"),
    *("--pretrain.epochs", "1", "--warmup.epochs", "2", "--robust.epochs", "2", "--distill.epochs", "2"),
    *("--robust.batch-size", "16", "--distill.batch-size", "16"),
    *("--runtime.threads", "1", "--runtime.workers", "0", "--runtime.device", "cpu"),
)
"""Flags of a whole fit that takes a second; ``micro_config`` is the same from Python."""


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """Find a real data set by name in LAUTER_DATA, else ../shared/data; skip where it is absent."""

    def find(name: str) -> Path:
        beside = Path(__file__).parents[2] / "shared" / "data"
        folder = Path(os.environ.get("LAUTER_DATA", beside)) / name
        if not folder.is_dir():
            pytest.skip(f"no data set {name} in {folder.parent}; set LAUTER_DATA to the folder that holds it")
        return folder

    return find


@pytest.fixture(scope="session")
def micro_flags() -> list[str]:
    """See ``MICRO``."""
    return list(MICRO)


@pytest.fixture(scope="session")
def micro_config() -> "FitConfig":
    """The settings of ``MICRO``."""
    from lauter.config import load_preset

    config = load_preset("standard")
    return dataclasses.replace(
        config,
        student="resnet8",
        teacher="resnet8",
        holdout=0.2,
        pretrain=dataclasses.replace(config.pretrain, epochs=1),
        warmup=dataclasses.replace(config.warmup, epochs=2),
        robust=dataclasses.replace(config.robust, epochs=2, batch_size=16),
        distill=dataclasses.replace(config.distill, epochs=2, batch_size=16),
        runtime=dataclasses.replace(config.runtime, device="cpu", threads=1, workers=0),
    )


def draw_photo(label: int, number: int, width: int = 16, height: int = 16) -> Image.Image:
    """A striped picture whose colour and stripes tell the class."""
    pixels = np.random.default_rng([label, number]).integers(0, 60, (height, width, 3))
    pixels[..., label % 3] += 150
    pixels[np.arange(height) // (2 + 2 * label) % 2 == 0] //= 2
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture(scope="session")
def photo() -> Callable[..., Image.Image]:
    """Draw a picture by label, number, width and height."""
    return draw_photo


@pytest.fixture(scope="session")
def write_photos() -> Callable[..., Path]:
    """Write class folders: ``write_photos(root, count=14, side=16)``; one class is called train."""

    def write(root: Path, count: int = 14, side: int = 16) -> Path:
        for label, name in enumerate(("cat", "dog", "train")):
            (root / name).mkdir(parents=True)
            for number in range(count):
                draw_photo(label, number, side, side).save(root / name / f"{number:02}.png")
        return root

    return write


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory, write_photos: Callable[..., Path]) -> Path:
    """A folder of 3 classes with 14 pictures each. Do not write there."""
    return write_photos(tmp_path_factory.mktemp("photos") / "photos")


@pytest.fixture(scope="session")
def finished(
    photos: Path, micro_config: "FitConfig", tmp_path_factory: pytest.TempPathFactory
) -> "FitResult":
    """One whole fit of ``photos``, from Python. Do not change its directory."""
    from lauter.pipeline import fit

    return fit(photos, config=micro_config, out=tmp_path_factory.mktemp("finished") / "run")
