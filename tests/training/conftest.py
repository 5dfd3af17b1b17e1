"""Tiny data, networks and loops on the processor, in float32."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lauter.data.dataset import ResidentImages
from lauter.models import InputSpec, Network, wrap_module
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Loop
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime, RuntimeConfig

MakeLoop = Callable[..., Loop]


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    """The processor, float32, nothing read by other processes."""
    return Runtime(RuntimeConfig(device="cpu", precision="32", workers=0))


@pytest.fixture
def make_loop(runtime: Runtime, tmp_path: Path) -> MakeLoop:
    """Make a loop that keeps its checkpoints in ``tmp_path`` / ``name``."""

    def make(name: str | None = None, progress: Progress | None = None, seconds: float = 300.0) -> Loop:
        directory = None if name is None else tmp_path / name
        return Loop(
            runtime, Checkpoints(directory), progress or Progress(), seed=5, checkpoint_seconds=seconds
        )

    return make


@pytest.fixture(scope="session")
def images() -> ResidentImages:
    """24 pictures of 8 x 8."""
    return ResidentImages(np.random.default_rng(0).integers(0, 256, (24, 3, 8, 8), dtype=np.uint8))


@pytest.fixture(scope="session")
def labels() -> torch.Tensor:
    """Three classes for them."""
    return torch.arange(24) % 3


@pytest.fixture(scope="session")
def make_network() -> Callable[[int], Network]:
    """Draw a small network with batch normalisation and dropout by seed."""

    def make(seed: int) -> Network:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            body = nn.Sequential(
                nn.Conv2d(3, 6, 3, stride=2, bias=False),
                nn.BatchNorm2d(6),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Dropout(0.3),
            )
            return wrap_module(body, 6, 3, InputSpec(8))

    return make
