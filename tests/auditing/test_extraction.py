"""Extraction: every image once, whatever stops it, by one process or by several; labels decide nothing."""

import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

from lauter.auditing import extraction, feature_store
from lauter.auditing.extraction import choose_picture_size, extract_features
from lauter.auditing.features import Features
from lauter.data import Dataset, ResidentImages
from lauter.errors import ConfigError, DataError, ModelError, RunError
from lauter.models import InputSpec, Network, wrap_module
from lauter.training.processes import Processes
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime, RuntimeConfig

PROGRAM = Path(__file__).with_name("extract_in_processes.py")
COUNT, ROWS = 27, 8


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """Pixels that are read one by one; one of them may be broken."""

    pixels: NDArray[np.uint8]
    broken: int = -1

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def uniform(self) -> None:
        return None

    def read(self, index: int) -> NDArray[np.uint8]:
        if index == self.broken:
            raise DataError(f"image-{index} is broken")
        return self.pixels[index]


class Counting(nn.Module):
    """A body that counts the images that it sees, and stops after some."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.scale = scale
        self.seen, self.last = 0, 10**9

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.seen + len(images) > self.last:
            raise KeyboardInterrupt
        self.seen += len(images)
        features: torch.Tensor = self.body(images) * self.scale
        return features


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_store, "SHARD_ROWS", ROWS)
    monkeypatch.setattr(extraction, "POLL_SECONDS", 0.01)


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime(RuntimeConfig(device="cpu", precision="32", workers=0))


@pytest.fixture(scope="module")
def data() -> Dataset:
    generator = np.random.default_rng(0)
    return Dataset(
        name="squares",
        images=ResidentImages(generator.integers(0, 256, (COUNT, 3, 8, 8), dtype=np.uint8)),
        labels=generator.integers(0, 3, COUNT),
        class_names=("a", "b", "c"),
        ids=np.array([f"image-{row}" for row in range(COUNT)]),
    )


def make_network(seed: int = 0, scale: float = 1.0, size: int = 8) -> tuple[Network, Counting]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = Counting(scale)
    return wrap_module(body, 6, 0, InputSpec(size)), body


def compute_by_hand(network: Network, data: Dataset) -> NDArray[np.float32]:
    """Image by image, without anything of the library's passes."""
    network.eval()
    with torch.no_grad():
        rows = [
            network.features(torch.from_numpy(data.images.read(row)[None]))[0] for row in range(len(data))
        ]
    return torch.cat(rows).numpy()


def values_of(found: Features | None) -> NDArray[Any]:
    assert found is not None
    return np.asarray(found.values)


def test_features_are_those_of_the_network(tmp_path: Path, data: Dataset, runtime: Runtime) -> None:
    network, _ = make_network()
    found = extract_features(network, data, runtime, tmp_path, dtype="float32", batch_size=4)
    assert found is not None
    np.testing.assert_allclose(found.values, compute_by_hand(network, data), rtol=1e-5, atol=1e-6)
    assert found.computed == COUNT
    assert found.images_per_second > 0
    assert found.source == "custom, 8 px"
    half = extract_features(network, data, runtime, tmp_path)
    assert half is not None
    assert half.values.dtype == np.float16
    assert half.key != found.key
    np.testing.assert_allclose(half.values, found.values, rtol=1e-3, atol=1e-6)


def test_a_second_audit_starts_at_once_whatever_the_labels(
    tmp_path: Path, data: Dataset, runtime: Runtime
) -> None:
    network, body = make_network()
    first = extract_features(network, data, runtime, tmp_path)
    assert body.seen == COUNT
    other = replace(data.with_labels((data.labels + 1) % 3), class_names=("x", "y", "z"), name="renamed")
    again = extract_features(make_network()[0], other, runtime, tmp_path)
    assert first is not None
    assert again is not None
    assert again.key == first.key
    assert again.computed == 0
    np.testing.assert_array_equal(again.values, first.values)


@pytest.mark.parametrize("change", ["pixel", "id", "weights", "size"])
def test_another_picture_or_network_is_another_store(
    tmp_path: Path, data: Dataset, runtime: Runtime, change: str
) -> None:
    extract_features(make_network()[0], data, runtime, tmp_path)
    network, body = make_network(seed=int(change == "weights"), size=9 if change == "size" else 8)
    if change == "pixel":
        pixels = np.array(data.images.uniform)
        pixels[13, 2, 7, 7] ^= 1
        data = replace(data, images=ResidentImages(pixels))
    elif change == "id":
        data = replace(data, ids=np.char.add(data.ids, "x"))
    extract_features(network, data, runtime, tmp_path)
    assert body.seen == COUNT
    assert len(list(tmp_path.iterdir())) == 2


def test_a_stopped_pass_goes_on_after_its_last_finished_shard(
    tmp_path: Path, data: Dataset, runtime: Runtime
) -> None:
    network, body = make_network()
    whole = values_of(extract_features(network, data, runtime, tmp_path / "whole", batch_size=4))
    network, body = make_network()
    body.last = 21  # in the third shard of 8
    network.train()
    with pytest.raises(KeyboardInterrupt):
        extract_features(network, data, runtime, tmp_path / "parts", batch_size=4)
    assert network.training
    network, body = make_network()
    found = extract_features(network, data, runtime, tmp_path / "parts", batch_size=4)
    assert body.seen == COUNT - 16
    assert found is not None
    assert found.computed == COUNT - 16
    np.testing.assert_array_equal(found.values, whole)


def test_a_broken_part_is_made_again_and_said(tmp_path: Path, data: Dataset, runtime: Runtime) -> None:
    whole = values_of(extract_features(make_network()[0], data, runtime, tmp_path, batch_size=4)).copy()
    (path,) = tmp_path.glob("*/features.npy")
    path.write_bytes(path.read_bytes()[:-1])
    network, body = make_network()
    console = Console(record=True, width=300, file=io.StringIO())
    found = extract_features(
        network, data, runtime, tmp_path, batch_size=4, progress=Progress(console=console)
    )
    assert body.seen == COUNT % ROWS
    np.testing.assert_array_equal(values_of(found), whole)
    said = console.export_text()
    assert "has changed on disk; its broken parts are made again" in said
    assert "features    3 of 3" in said


def test_streamed_images_give_the_same(tmp_path: Path, data: Dataset, runtime: Runtime) -> None:
    pixels = data.images.uniform
    assert pixels is not None
    streamed = replace(data, images=StreamedImages(pixels))
    network, _ = make_network()
    found = values_of(extract_features(network, streamed, runtime, tmp_path, dtype="float32"))
    np.testing.assert_allclose(found, compute_by_hand(network, data), rtol=1e-5, atol=1e-6)


def test_a_broken_image_is_named_and_the_finished_shards_stay(
    tmp_path: Path, data: Dataset, runtime: Runtime
) -> None:
    pixels = data.images.uniform
    assert pixels is not None
    broken = replace(data, images=StreamedImages(pixels, broken=20))
    with pytest.raises(DataError, match="image-20 is broken"):
        extract_features(make_network()[0], broken, runtime, tmp_path, batch_size=4)
    assert len(list(tmp_path.glob("*/shards/*.rows"))) == 2


def test_small_resident_images_are_enlarged_by_the_network(data: Dataset) -> None:
    pixels = data.images.uniform
    assert pixels is not None
    assert choose_picture_size(make_network(size=32)[0], data.images) == 8
    assert choose_picture_size(make_network(size=4)[0], data.images) == 4
    assert choose_picture_size(make_network(size=32)[0], StreamedImages(pixels)) == 32


@pytest.mark.parametrize(
    ("scale", "dtype", "message"),
    [
        (
            float("nan"),
            "float32",
            r"features of 8 images of a shard are NaN .*'image-0', 'image-1', 'image-2'",
        ),
        (1e9, "float16", r"do not fit into float16; store them as float32"),
    ],
)
def test_numbers_that_cannot_be_stored_are_refused(
    tmp_path: Path, data: Dataset, runtime: Runtime, scale: float, dtype: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        extract_features(make_network(scale=scale)[0], data, runtime, tmp_path, dtype=dtype)
    assert not list(tmp_path.glob("*/manifest.json"))


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"wait_seconds": 0.0}, {"wait_seconds": float("nan")}]
)
def test_settings_out_of_range_are_refused(
    tmp_path: Path, data: Dataset, runtime: Runtime, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="batch_size and wait_seconds must be above 0"):
        extract_features(make_network()[0], data, runtime, tmp_path, **options)


def test_each_process_makes_its_shards_and_the_first_one_joins_them(
    tmp_path: Path, data: Dataset, runtime: Runtime
) -> None:
    alone = values_of(extract_features(make_network()[0], data, runtime, tmp_path / "1", batch_size=4))
    seen = []
    for rank in (2, 1, 0):
        network, body = make_network()
        found = extract_features(
            network, data, runtime, tmp_path / "3", batch_size=4, processes=Processes(rank, 3)
        )
        seen.append(body.seen)
        assert (found is None) == (rank > 0)
    assert seen == [8, 8, 11]
    assert found is not None
    assert found.computed == 11
    np.testing.assert_array_equal(found.values, alone)
    network, body = make_network()
    assert extract_features(network, data, runtime, tmp_path / "3", processes=Processes(1, 3)) is None
    assert body.seen == 0


def test_the_first_process_makes_again_what_another_left_broken(
    tmp_path: Path, data: Dataset, runtime: Runtime
) -> None:
    alone = values_of(extract_features(make_network()[0], data, runtime, tmp_path / "1", batch_size=4))
    extract_features(
        make_network()[0], data, runtime, tmp_path / "2", batch_size=4, processes=Processes(1, 2)
    )
    (path,) = tmp_path.glob("2/*/shards/000001-*")
    path.write_bytes(path.read_bytes()[:-2])
    network, body = make_network()
    found = extract_features(network, data, runtime, tmp_path / "2", batch_size=4, processes=Processes(0, 2))
    assert body.seen == 24
    np.testing.assert_array_equal(values_of(found), alone)


def test_a_finished_store_that_broke_is_mended_by_the_first_process_alone(
    tmp_path: Path, data: Dataset, runtime: Runtime
) -> None:
    """The others may have seen a finished store and gone; nobody waits for them."""
    whole = values_of(extract_features(make_network()[0], data, runtime, tmp_path, batch_size=4)).copy()
    (path,) = tmp_path.glob("*/features.npy")
    path.unlink()
    assert extract_features(make_network()[0], data, runtime, tmp_path, processes=Processes(1, 2)) is None
    network, body = make_network()
    found = extract_features(
        network, data, runtime, tmp_path, batch_size=4, wait_seconds=0.05, processes=Processes(0, 2)
    )
    assert body.seen == COUNT
    np.testing.assert_array_equal(values_of(found), whole)


def test_shards_that_never_come_are_named(tmp_path: Path, data: Dataset, runtime: Runtime) -> None:
    with pytest.raises(
        RunError,
        match=r"no shard came .* 2 of 4 are missing \(1, 3\), which processes 1 of 2 .*Start the same",
    ):
        extract_features(
            make_network()[0], data, runtime, tmp_path, wait_seconds=0.05, processes=Processes(0, 2)
        )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the two processes are forked")
def test_two_real_processes(tmp_path: Path) -> None:
    """One is killed, the other says what is missing; started again, both end well, every image once."""
    ended = subprocess.run(
        [sys.executable, PROGRAM, tmp_path],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    story = json.loads(ended.stdout)
    assert story["killed"]["codes"] == [2, -9]
    assert "no shard came" in story["killed"]["said"][0]
    assert "which processes 1 of 2" in story["killed"]["said"][0]
    assert story["again"]["codes"] == [0, 0]
    kept = story["killed"]["shards"]
    assert kept == 4 + 1
    assert story["again"]["seen"] == [0, (7 - 4 - 1) * 8 + 3]
    np.testing.assert_array_equal(np.load(tmp_path / "two.npy"), np.load(tmp_path / "one.npy"))
