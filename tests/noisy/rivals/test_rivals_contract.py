"""What every rival keeps to: it learns, leaves the hold-out alone, counts its cost, resumes bit for bit."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lauter.data import Dataset
from lauter.errors import ConfigError
from lauter.models import Network, count_flops, create_network
from lauter.noisy.rivals import METHODS, Ground, RivalStage, train_rival
from lauter.training.loop import Loop
from lauter.training.schedule import OptimizerConfig
from lauter.training.setup import Setup, draw_from
from lauter.training.stage import Stage
from lauter.training.supervised import SupervisedConfig

TRAINING = SupervisedConfig(epochs=4, batch_size=32, optimizer=OptimizerConfig(lr=0.05))

MakeGround = Callable[..., Ground]


@pytest.fixture
def make_ground(make_setup: Callable[..., Setup]) -> MakeGround:
    """The same ground for every method; networks are drawn by role."""

    def make(data: Dataset, directory: Path | None = None, training: SupervisedConfig = TRAINING) -> Ground:
        def build(role: str) -> Network:
            with draw_from(0, role):
                return create_network("resnet8", 3, image_size=16)

        return Ground("method", make_setup(data, directory), build, training)

    return make


@pytest.mark.parametrize("name", METHODS)
def test_a_rival_trains_and_counts_its_cost(
    name: str, make_ground: MakeGround, make_data: Callable[..., Dataset]
) -> None:
    ground = make_ground(make_data())
    stage = train_rival(name, ground)
    assert len(stage.tracker.scores) == TRAINING.epochs  # as many epochs on labels as every other
    for value in stage.evaluated.state_dict().values():
        assert torch.isfinite(value).all()
    costs = ground.setup.loop.costs
    assert all(part == "method" or part.startswith("method.") for part in costs)
    spent = sum(cost.flops for cost in costs.values())
    one_network = 3 * count_flops(ground.build("first")) * len(ground.setup.labelled_train) * TRAINING.epochs
    assert spent >= 0.99 * one_network


@pytest.mark.parametrize("name", METHODS)
def test_holdout_labels_do_not_move_a_rival(
    name: str, make_ground: MakeGround, make_data: Callable[..., Dataset]
) -> None:
    data = make_data()
    other = data.labels.copy()
    holdout = np.arange(len(data)) % 6 == 5
    other[holdout] = (other[holdout] + 1) % 3
    first, second = (train_rival(name, make_ground(part)) for part in (data, data.with_labels(other)))
    for key, value in first.network.state_dict().items():
        torch.testing.assert_close(second.network.state_dict()[key], value, rtol=0, atol=0)
    assert first.tracker.scores != second.tracker.scores


@pytest.mark.parametrize("stop_at", [2, 9])
@pytest.mark.parametrize("name", METHODS)
def test_a_stopped_rival_ends_where_an_uninterrupted_one_does(
    name: str, stop_at: int, make_ground: MakeGround, make_data: Callable[..., Dataset], tmp_path: Path
) -> None:
    training = dataclasses.replace(TRAINING, ema_decay=0.9)
    data = make_data(90)
    whole = train_rival(name, make_ground(data, tmp_path / "whole", training))

    class Stop(Exception):
        pass

    original, calls = Loop._step, []

    def stop_in_the_middle(self: Loop, stage: Stage, *rest: object) -> None:
        calls.append(1)
        if len(calls) == stop_at:
            raise Stop
        original(self, stage, *rest)  # type: ignore[arg-type]

    ground = make_ground(data, tmp_path / "part", training)
    ground.setup.loop.checkpoint_seconds = 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "_step", stop_in_the_middle)
        with pytest.raises(Stop):
            train_rival(name, ground)
    resumed = train_rival(name, make_ground(data, tmp_path / "part", training))
    for key, value in whole.evaluated.state_dict().items():
        torch.testing.assert_close(resumed.evaluated.state_dict()[key], value, rtol=0, atol=0)


def test_an_unknown_rival_is_refused(make_ground: MakeGround, make_data: Callable[..., Dataset]) -> None:
    with pytest.raises(ConfigError, match=r"method must be one of ce, .*, not 'elf'"):
        train_rival("elf", make_ground(make_data(60)))


def test_label_smoothing_is_cross_entropy_with_less_trust(
    make_ground: MakeGround, make_data: Callable[..., Dataset]
) -> None:
    plain, smooth = METHODS["ce"][0](), METHODS["ls"][0]()
    assert (plain.label_smoothing, smooth.label_smoothing) == (0.0, 0.1)
    ground = make_ground(make_data(60))
    stages: list[RivalStage] = [METHODS[name][1](METHODS[name][0](), ground) for name in ("ce", "ls")]
    batch = next(iter(stages[0].batches.epoch(0)))
    for stage in stages:
        stage.network.eval()
    plain_loss, smooth_loss = (stage.loss(batch)["classification"] for stage in stages)
    log_probs = stages[0].network(batch.images).logits.log_softmax(1)
    torch.testing.assert_close(smooth_loss, 0.9 * plain_loss - 0.1 * log_probs.mean(1))
    with pytest.raises(ConfigError, match=r"ce: label_smoothing must be in \[0, 1\), not 1.0"):
        type(plain)(label_smoothing=1.0)
