"""Small teachers, pictures and hashes, and banks made of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lauter.data import Dataset, ResidentImages
from lauter.data.views import ViewRecipe
from lauter.distillation import bank_building
from lauter.distillation.bank import Bank
from lauter.distillation.bank_building import build_bank
from lauter.distillation.method import Part
from lauter.losses.hashing import draw_hash_weights
from lauter.models import InputSpec, Network, wrap_module
from lauter.training.runtime import Runtime, RuntimeConfig

SIZE, FEATURES, CLASSES, IMAGES = 12, 15, 3, 30

Build = Callable[..., Bank]
MakeData = Callable[..., Dataset]
MakeTeacher = Callable[..., Network]
DrawHashes = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """Pixels that are read one by one."""

    pixels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def uniform(self) -> None:
        return None

    def read(self, index: int) -> NDArray[np.uint8]:
        return self.pixels[index]


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    """The processor, float32, nothing read by other processes."""
    return Runtime(RuntimeConfig(device="cpu", precision="32", workers=0))


@pytest.fixture(scope="session")
def rows() -> NDArray[np.int64]:
    """27 of the 30 rows, in no order."""
    return np.random.default_rng(1).permutation(IMAGES)[:27]


@pytest.fixture(scope="session")
def make_data() -> MakeData:
    """Draw 30 pictures of 12 x 12 by seed."""

    def make(seed: int = 0, *, streamed: bool = False) -> Dataset:
        rng = np.random.default_rng(seed)
        pixels = rng.integers(0, 256, (IMAGES, 3, SIZE, SIZE), dtype=np.uint8)
        ids = np.array([f"{row}.png" for row in range(IMAGES)])
        return Dataset(
            "noise",
            StreamedImages(pixels) if streamed else ResidentImages(pixels),
            rng.integers(0, CLASSES, IMAGES),
            ("a", "b", "c"),
            ids,
        )

    return make


@pytest.fixture(scope="session")
def make_teacher() -> MakeTeacher:
    """Draw a network of 15 features by seed, with batch normalisation and dropout."""

    def make(seed: int = 0, classes: int = CLASSES) -> Network:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            body = nn.Sequential(
                nn.Conv2d(3, FEATURES, 3, stride=2, bias=False),
                nn.BatchNorm2d(FEATURES),
                nn.ReLU(),
                nn.Flatten(2),
                nn.AdaptiveAvgPool1d(1),
                nn.Flatten(),
                nn.Dropout(0.3),
            )
            return wrap_module(body, FEATURES, classes, InputSpec(SIZE))

    return make


@pytest.fixture(scope="session")
def draw_hashes() -> DrawHashes:
    """Draw weights and bias of so many hashes by seed."""

    def draw(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        weight = draw_hash_weights(count, FEATURES, 0.3, generator)
        return weight, 0.02 * torch.randn(count, generator=generator)

    return draw


@pytest.fixture
def build(
    make_data: MakeData,
    make_teacher: MakeTeacher,
    draw_hashes: DrawHashes,
    runtime: Runtime,
    rows: NDArray[np.int64],
) -> Build:
    """Build a bank of three views of bits, where nothing else is said."""

    def build_one(directory: Path, parts: set[Part] | None = None, **changed: Any) -> Bank:
        settings: dict[str, Any] = {
            "network": make_teacher(),
            "data": make_data(),
            "rows": rows,
            "runtime": runtime,
            "recipe": ViewRecipe(pad=2, flip=0.5),
            "view_seed": 11,
            "views": 3,
            "image_size": SIZE,
            "parts": frozenset(parts or {"bits"}),
            "hashes": draw_hashes(64) if parts is None or "bits" in parts else None,
            "batch_size": 10,
        }
        return build_bank(directory, **{**settings, **changed})

    return build_one


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three shards to a view of 27 rows."""
    monkeypatch.setattr(bank_building, "SHARD_ROWS", 10)
