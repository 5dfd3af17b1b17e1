"""The stages of the recipe on tiny images: they learn, they do not peek, and they resume."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from lauter.data import Dataset, ResidentImages
from lauter.models import create_network
from lauter.noisy.pretrain import PretrainConfig
from lauter.noisy.recipe import NoisyConfig, train_robustly
from lauter.noisy.robust import RobustConfig, RobustStage
from lauter.noisy.warmup import WarmupConfig
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Loop
from lauter.training.runtime import Runtime, RuntimeConfig
from lauter.training.setup import Setup

CONFIG = NoisyConfig(
    PretrainConfig(epochs=1, batch_size=32),
    WarmupConfig(epochs=4),
    RobustConfig(epochs=3, batch_size=32, refresh_neighbours=2),
)


def make_data(count: int = 120, seed: int = 0) -> Dataset:
    """Three classes told apart by colour; a fifth of the labels is wrong, some are missing."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, count)
    pixels = rng.integers(0, 60, (count, 3, 16, 16))
    pixels[np.arange(count), true] += 150
    labels = np.where(rng.random(count) < 0.2, (true + 1) % 3, true)
    labels[:6] = -1
    ids = np.array([f"{row}.png" for row in range(count)])
    return Dataset("colours", ResidentImages(pixels.astype(np.uint8)), labels, ("r", "g", "b"), ids)


def make_setup(data: Dataset, directory: Path | None = None) -> Setup:
    runtime = Runtime(RuntimeConfig(device="cpu", precision="32", workers=0))
    loop = Loop(runtime, Checkpoints(directory))
    rows = np.arange(len(data))
    return Setup(data, rows[rows % 6 != 5], rows[rows % 6 == 5], data.images, loop, 16, "objects")


def run(data: Dataset, directory: Path | None = None, config: NoisyConfig = CONFIG) -> RobustStage:
    torch.manual_seed(0)
    return train_robustly(make_setup(data, directory), create_network("resnet8", 3, image_size=16), config)


def test_the_recipe_finds_wrong_labels_and_suggests_for_unlabelled_images() -> None:
    data = make_data(300)
    longer = dataclasses.replace(
        CONFIG,
        robust=RobustConfig(epochs=6, batch_size=32, refresh_neighbours=2, ema_decay=0.9),
        pretrain=PretrainConfig(method="none"),
    )
    stage = run(data, config=longer)
    true = data.images.uniform.mean((2, 3)).argmax(1)  # type: ignore[union-attr]
    known = data.labelled
    wrong = (data.labels != true) & known
    assert stage.assessment.p_right[known & ~wrong].mean() > stage.assessment.p_right[wrong].mean() + 0.4
    assert np.mean(stage.suggested[~known] == true[~known]) > 0.8
    assert not stage.assessment.kept[~known].any()


def test_holdout_images_teach_nothing() -> None:
    data = make_data()
    other = data.labels.copy()
    holdout = np.arange(len(data)) % 6 == 5
    other[holdout] = np.roll(other[holdout], 1)
    # Hold-out labels may end the warm-up and select an epoch; they must not move a weight otherwise.
    config = dataclasses.replace(CONFIG, warmup=WarmupConfig(epochs=2))
    first, second = run(data, config=config), run(data.with_labels(other), config=config)
    for one, two in zip(first.network.parameters(), second.network.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert first.tracker.scores != second.tracker.scores


def test_every_part_can_be_switched_off() -> None:
    data = make_data(60)
    for beliefs in ("ensemble", "neighbours"):
        robust = RobustConfig(
            epochs=1, batch_size=32, beliefs=beliefs, weighting="soft", ema_decay=0.0, refresh_neighbours=0
        )
        stage = run(data, config=NoisyConfig(PretrainConfig(method="none"), WarmupConfig(epochs=1), robust))
        expected = stage.ensemble.probabilities if beliefs == "ensemble" else stage.votes
        np.testing.assert_array_equal(stage.beliefs, expected)
        assert stage.evaluated is stage.network


def test_a_stopped_recipe_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    data = make_data()
    whole = run(data, tmp_path / "whole")

    class Stop(Exception):
        pass

    original, calls = RobustStage.after_step, []

    def stop_in_the_middle(self: RobustStage) -> None:
        original(self)
        calls.append(1)
        if len(calls) == 6:
            raise Stop

    part = tmp_path / "part"
    setup = make_setup(data, part)
    setup.loop.checkpoint_seconds = 0.0
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RobustStage, "after_step", stop_in_the_middle)
        with pytest.raises(Stop):
            train_robustly(setup, create_network("resnet8", 3, image_size=16), CONFIG)
    resumed = run(data, part)
    for name, value in whole.evaluated.state_dict().items():
        torch.testing.assert_close(resumed.evaluated.state_dict()[name], value, rtol=0, atol=0)
    np.testing.assert_array_equal(resumed.assessment.p_right, whole.assessment.p_right)
    np.testing.assert_array_equal(resumed.beliefs, whole.beliefs)
    assert resumed.tracker.scores == whole.tracker.scores
    assert vars(setup.loop.costs["pretrain"])["images"] == 240
