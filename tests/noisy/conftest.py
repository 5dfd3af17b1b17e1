"""Pictures of three classes told apart by colour, some of their labels wrong, and what trains on them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lauter.data import Dataset, ResidentImages
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Loop
from lauter.training.runtime import Runtime, RuntimeConfig
from lauter.training.setup import Setup

MakeData = Callable[..., Dataset]
MakeSetup = Callable[..., Setup]


@pytest.fixture(scope="session")
def make_data() -> MakeData:
    """Draw a data set: a fifth of the labels is wrong, six are missing."""

    def make(count: int = 120, seed: int = 0) -> Dataset:
        rng = np.random.default_rng(seed)
        true = rng.integers(0, 3, count)
        pixels = rng.integers(0, 60, (count, 3, 16, 16))
        pixels[np.arange(count), true] += 150
        labels = np.where(rng.random(count) < 0.2, (true + 1) % 3, true)
        labels[:6] = -1
        ids = np.array([f"{row}.png" for row in range(count)])
        return Dataset("colours", ResidentImages(pixels.astype(np.uint8)), labels, ("r", "g", "b"), ids)

    return make


@pytest.fixture(scope="session")
def make_setup() -> MakeSetup:
    """Set up a run on the processor in float32; every sixth image is held out."""

    def make(data: Dataset, directory: Path | None = None) -> Setup:
        runtime = Runtime(RuntimeConfig(device="cpu", precision="32", workers=0))
        loop = Loop(runtime, Checkpoints(directory))
        rows = np.arange(len(data))
        return Setup(data, rows[rows % 6 != 5], rows[rows % 6 == 5], data.images, loop, 16, "objects")

    return make
