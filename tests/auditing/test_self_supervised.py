"""Features learnt from the images alone: no label is looked at, a stop costs little, and once is enough."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lauter.auditing.self_supervised import (
    SelfSupervisedConfig,
    choose_learning_size,
    hold_pictures,
    learn_features,
)
from lauter.data import Dataset, ResidentImages, open_dataset
from lauter.errors import ConfigError, DataError, ModelError
from lauter.models import Network
from lauter.noisy.pretrain import PretrainConfig
from lauter.training.loop import Loop
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime, RuntimeConfig

CONFIG = SelfSupervisedConfig(
    network="resnet8", least_images=0, pretrain=PretrainConfig(epochs=2, batch_size=8, monitor_every=0)
)


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime(RuntimeConfig(device="cpu", precision="32", threads=1, workers=0))


def make_data(count: int = 24, labels: int = 0, size: int = 16) -> Dataset:
    generator = np.random.default_rng(0)
    return Dataset(
        name="squares",
        images=ResidentImages(generator.integers(0, 256, (count, 3, size, size), dtype=np.uint8)),
        labels=np.full(count, labels),
        class_names=("a", "b", "c"),
        ids=np.array([f"image-{row}" for row in range(count)]),
    )


def weights_of(network: Network) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_labels_decide_nothing_and_training_happens_once(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = weights_of(learn_features(make_data(labels=1), runtime, tmp_path / "1", CONFIG, Progress()))
    apart = weights_of(learn_features(make_data(labels=-1), runtime, tmp_path / "2", CONFIG, Progress()))
    torch.testing.assert_close(apart, first, rtol=0, atol=0)
    (folder,) = (tmp_path / "1").iterdir()
    assert folder.name.startswith("simclr-")
    assert [entry.name for entry in folder.iterdir()] == ["network.safetensors"]
    monkeypatch.setattr(Loop, "run_stage", lambda *_: pytest.fail("it was trained again"))
    again = learn_features(make_data(labels=2), runtime, tmp_path / "1", CONFIG, Progress())
    assert not again.training
    assert again.num_classes == 0
    torch.testing.assert_close(weights_of(again), first, rtol=0, atol=0)


def test_few_images_are_shown_as_often_as_many(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(Loop, "run_stage", lambda self, stage: asked.append(stage.epochs))
    for least in (0, 24, 60, 61):
        few = dataclasses.replace(CONFIG, least_images=least)
        learn_features(make_data(), runtime, tmp_path / str(least), few, Progress())
    assert asked == [2, 2, 5, 6]  # 24 images, two epochs


def test_a_stopped_training_goes_on(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = weights_of(learn_features(make_data(), runtime, tmp_path / "whole", CONFIG, Progress()))

    class Stopping(Progress):
        def epoch(self, record: dict[str, Any], epochs: int) -> None:
            if record["epoch"] == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_features(make_data(), runtime, tmp_path / "parts", CONFIG, Stopping())
    assert len(list((tmp_path / "parts").glob("*/pretrain.pt"))) == 1
    begun: list[int] = []

    class Following(Progress):
        def epoch(self, record: dict[str, Any], epochs: int) -> None:
            begun.append(record["epoch"])

    found = learn_features(make_data(), runtime, tmp_path / "parts", CONFIG, Following())
    assert begun == [1]
    torch.testing.assert_close(weights_of(found), whole, rtol=0, atol=0)


def test_other_pictures_or_settings_learn_anew(tmp_path: Path, runtime: Runtime) -> None:
    one = dataclasses.replace(CONFIG, pretrain=dataclasses.replace(CONFIG.pretrain, epochs=1))
    for data, config in (
        (make_data(), one),
        (make_data(23), one),
        (make_data(), dataclasses.replace(one, seed=1)),
        (make_data(), dataclasses.replace(one, augment="digits")),
        (make_data(), dataclasses.replace(one, image_size=8)),
    ):
        learn_features(data, runtime, tmp_path, config, Progress())
    assert len(list(tmp_path.glob("simclr-*/network.safetensors"))) == 5


def test_a_damaged_network_file_is_refused_with_the_way_out(tmp_path: Path, runtime: Runtime) -> None:
    one = dataclasses.replace(CONFIG, pretrain=dataclasses.replace(CONFIG.pretrain, epochs=1))
    learn_features(make_data(), runtime, tmp_path, one, Progress())
    (file,) = tmp_path.glob("*/network.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"damaged.*Delete .*simclr-\w+ to have the features learnt again"):
        learn_features(make_data(), runtime, tmp_path, one, Progress())


def test_small_images_keep_their_size_and_larger_ones_are_learnt_at_64(
    tmp_path: Path, write_photos: Callable[..., Path]
) -> None:
    assert choose_learning_size(make_data(4, size=32)) == 32
    assert choose_learning_size(make_data(4, size=96)) == 96
    assert choose_learning_size(make_data(4, size=97)) == 64
    streamed = open_dataset(write_photos(tmp_path / "photos", count=2, side=120))
    assert streamed.images.uniform is None
    assert choose_learning_size(streamed) == 64


def test_streamed_pictures_are_decoded_once(
    tmp_path: Path, runtime: Runtime, write_photos: Callable[..., Path]
) -> None:
    root = write_photos(tmp_path / "photos", count=2, side=120)
    data = open_dataset(root)
    held = hold_pictures(data, 24, runtime, Progress())
    assert held.images.uniform is not None
    assert held.images.uniform.shape == (6, 3, 24, 24)
    for row, name in enumerate(data.ids):
        with Image.open(root / str(name)) as picture:
            expected = picture.convert("RGB").resize((24, 24), Image.Resampling.BILINEAR)
        # Pillow rounds to another level here and there.
        found = held.images.read(row).transpose(1, 2, 0)
        np.testing.assert_allclose(found.astype(int), np.asarray(expected), rtol=0, atol=1)
    assert hold_pictures(data, 24, runtime, Progress(), limit=100) is data
    assert hold_pictures(held, 24, runtime, Progress()) is held


def test_bad_input_is_refused(tmp_path: Path, runtime: Runtime) -> None:
    with pytest.raises(DataError, match="3 images are too few to learn features from"):
        learn_features(make_data(3), runtime, tmp_path, CONFIG, Progress())
    bad = dataclasses.replace(CONFIG, network="resnet21")
    with pytest.raises(ModelError, match=r"'resnet21'; near it: .*resnet20"):
        learn_features(make_data(), runtime, tmp_path, bad, Progress())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"augment": "none"}, "digits or objects, not 'none'"),
        ({"image_size": 7}, "8 to 1024"),
        ({"seed": -1}, "seed and least_images must be 0 or more, not -1 and"),
        ({"least_images": -1}, "seed and least_images must be 0 or more, not .* and -1"),
        ({"pretrain": PretrainConfig(method="none", monitor_every=0)}, "simclr or moco, not none"),
        ({"pretrain": PretrainConfig()}, "monitor_every must be 0, not 10"),
    ],
)
def test_settings_out_of_range_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **changed)
