"""Tracking and supervised training: the hold-out selects, the test images are only predicted."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lauter.data.batches import ImageBatches
from lauter.data.dataset import Dataset, ResidentImages
from lauter.data.views import IDENTITY, ViewRecipe, supervised_view
from lauter.errors import ConfigError
from lauter.models import Network, count_flops
from lauter.training.loop import Loop
from lauter.training.predict import predict
from lauter.training.schedule import OptimizerConfig
from lauter.training.setup import Setup
from lauter.training.supervised import SupervisedConfig, SupervisedStage
from lauter.training.tracking import Tracker, Watch

MakeNetwork = Callable[[int], Network]
MakeLoop = Callable[..., Loop]
CONFIG = SupervisedConfig(epochs=3, batch_size=8, optimizer=OptimizerConfig(lr=0.05))


@pytest.fixture
def data(images: ResidentImages, labels: torch.Tensor) -> Dataset:
    """24 images; rows 18 on are held out."""
    ids = np.array([f"{row}.png" for row in range(24)])
    return Dataset("tiny", images, labels.numpy(), ("a", "b", "c"), ids)


@pytest.fixture
def setup(data: Dataset, make_loop: MakeLoop) -> Setup:
    """With the first five images as test images, too."""
    test = ResidentImages(data.images.uniform[:5])  # type: ignore[index]
    return Setup(data, np.arange(18), np.arange(18, 24), test, make_loop(), 8, "objects")


def make_stage(setup: Setup, network: Network, config: SupervisedConfig = CONFIG) -> SupervisedStage:
    batches = setup.batches("student", setup.labelled_train, config.batch_size)
    return SupervisedStage("baseline", network, setup.data.labels, batches, config, setup.track())


def test_the_tracker_keeps_scores_predictions_and_the_best_weights(
    setup: Setup, make_network: MakeNetwork
) -> None:
    tracker = setup.track()
    networks = [make_network(seed) for seed in range(5)]
    for network in networks:
        features = setup.predict(network).features
        with torch.no_grad():  # centred, so that an untrained network names more than one class
            network.head.bias.copy_(-network.head.weight @ features.mean(0))
        seen = tracker.follow(network)
        torch.testing.assert_close(
            seen.logits, predict(network, setup.data.images, setup.loop.runtime, index=setup.holdout).logits
        )
    given = setup.data.labels[setup.holdout]
    for epoch, network in enumerate(networks):
        alone = predict(network, setup.data.images, setup.loop.runtime, index=setup.holdout)
        classes = alone.classes()
        np.testing.assert_array_equal(tracker.holdout_predictions[epoch].numpy(), classes)
        recalls = [np.mean(classes[given == label] == label) for label in range(3)]
        assert tracker.scores[epoch] == pytest.approx(np.mean(recalls))
        assert setup.test is not None
        tested = predict(network, setup.test, setup.loop.runtime).logits.softmax(1)
        np.testing.assert_array_equal(tracker.test_predictions[epoch].numpy(), tested.argmax(1).numpy())
        torch.testing.assert_close(
            tracker.test_confidence[epoch].float(), tested.max(1).values, rtol=1e-3, atol=1e-3
        )
    best = int(np.argmax(tracker.scores))
    assert len(set(tracker.scores)) > 1
    assert tracker.selected_epoch == best
    torch.testing.assert_close(tracker.selected, dict(networks[best].state_dict()), rtol=0, atol=0)


def test_selected_weights_are_a_copy(setup: Setup, make_network: MakeNetwork) -> None:
    tracker, network = setup.track(), make_network(0)
    tracker.follow(network)
    before = {name: value.clone() for name, value in tracker.selected.items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    torch.testing.assert_close(tracker.selected, before, rtol=0, atol=0)


def test_without_test_images_nothing_is_predicted_for_them(
    data: Dataset, setup: Setup, make_network: MakeNetwork
) -> None:
    tracker = Tracker(Watch(data, setup.holdout, None, setup.loop.runtime, 8))
    tracker.follow(make_network(0))
    assert tracker.test_predictions == []
    assert len(tracker.scores) == 1


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_followed_stage_is_continued_with_its_history(
    setup: Setup, make_network: MakeNetwork, make_loop: MakeLoop, ema_decay: float
) -> None:
    config = replace(CONFIG, ema_decay=ema_decay)
    whole = make_stage(setup, make_network(0), config)
    make_loop("whole").run([whole])
    first = make_stage(setup, make_network(0), config)
    first.end_epoch = stop_in_the_second_epoch(first)  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="stopped"):
        make_loop("broken").run([first])
    resumed = make_stage(setup, make_network(0), config)
    make_loop("broken").run([resumed])
    assert len(whole.tracker.scores) == 3
    torch.testing.assert_close(resumed.state(), whole.state(), rtol=0, atol=0)
    torch.testing.assert_close(resumed.evaluated.state_dict(), whole.evaluated.state_dict(), rtol=0, atol=0)
    assert (resumed.evaluated is resumed.network) == (ema_decay == 0)


def stop_in_the_second_epoch(stage: SupervisedStage) -> Callable[[int], dict[str, float]]:
    follow = stage.end_epoch

    def end_epoch(epoch: int) -> dict[str, float]:
        if epoch == 1:
            raise RuntimeError("stopped")
        return follow(epoch)

    return end_epoch


def test_supervised_training_learns_what_it_is_given(
    data: Dataset, make_loop: MakeLoop, make_network: MakeNetwork
) -> None:
    """Three colours are told apart; unlabelled images of a wrong colour do not disturb."""
    pixels = np.random.default_rng(0).integers(0, 40, (48, 3, 8, 8))
    colour = np.arange(48) % 3
    pixels[np.arange(48), colour] += 180
    labels = np.where(np.arange(48) % 8 == 0, -1, colour)
    ids = np.array([str(row) for row in range(48)])
    colours = Dataset("colours", ResidentImages(pixels.astype(np.uint8)), labels, ("r", "g", "b"), ids)
    setup = Setup(colours, np.arange(36), np.arange(36, 48), None, make_loop(), 8, "none")
    network = make_network(0)
    batches = setup.batches("student", setup.train, 8)
    config = replace(CONFIG, epochs=15, optimizer=OptimizerConfig(lr=0.1))
    stage = SupervisedStage("ce", network, labels, batches, config, setup.track())
    setup.loop.run([stage])
    classes = predict(network, colours.images, setup.loop.runtime).classes()
    assert np.mean(classes == colour) > 0.9
    assert setup.loop.costs["ce"].images == 15 * 36
    assert setup.loop.costs["ce"].flops == 15 * 36 * 3 * count_flops(network)


def test_the_supervised_loss_is_cross_entropy_over_the_labelled(
    setup: Setup, make_network: MakeNetwork
) -> None:
    labels = setup.data.labels.copy()
    labels[:9] = -1
    batches = ImageBatches(setup.data.images, np.arange(18), 18, (IDENTITY,), 8)
    batch = next(iter(batches.epoch(0)))
    prior = torch.tensor([0.2, 0.3, 0.5]).log()
    for log_prior in (None, prior):
        network = make_network(0).eval()
        stage = SupervisedStage("ce", network, labels, batches, CONFIG, setup.track(), log_prior)
        found = stage.loss(batch)["classification"].mean().item()
        logits = network(batch.images).logits.detach().double()
        total, count = 0.0, 0
        for row, place in enumerate(batch.index.tolist()):
            if labels[place] < 0:
                continue
            shifted = [
                logits[row, k].item() + (0 if log_prior is None else log_prior[k].item()) for k in range(3)
            ]
            total += math.log(sum(math.exp(value) for value in shifted)) - shifted[labels[place]]
            count += 1
        assert count == 9
        assert found == pytest.approx(total / count, rel=1e-5)


def test_a_batch_of_unlabelled_images_teaches_nothing(
    setup: Setup, make_network: MakeNetwork, make_loop: MakeLoop
) -> None:
    network = make_network(0)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    batches = ImageBatches(setup.data.images, np.arange(8), 8, (IDENTITY,), 8)
    labels = np.full(24, -1)
    config = replace(CONFIG, epochs=1, optimizer=OptimizerConfig(weight_decay=0.0))
    make_loop().run([SupervisedStage("ce", network, labels, batches, config, setup.track())])
    torch.testing.assert_close([p.detach() for p in network.parameters()], before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"epochs": 0}, "epochs and batch_size must be 1 or more, not 0, 128"),
        ({"batch_size": 0}, "epochs and batch_size must be 1 or more"),
        ({"ema_decay": 1.0}, "ema_decay must be in"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SupervisedConfig(**setting)


def test_a_setup_hands_out_what_all_stages_share(
    data: Dataset, make_loop: MakeLoop, make_network: MakeNetwork
) -> None:
    labels = data.labels.copy()
    labels[[1, 4]] = -1
    data = data.with_labels(labels)
    setup = Setup(data, np.arange(6), np.arange(18, 24), None, make_loop(), 8, "objects")
    assert setup.labelled_train.tolist() == [0, 2, 3, 5]
    batches = setup.batches("student", setup.train, 4)
    assert batches.recipes == (supervised_view("objects", 8),)
    assert batches.seed == setup.batches("student", setup.train, 4).seed
    assert batches.seed != setup.batches("robust", setup.train, 4).seed
    two = (ViewRecipe(flip=0.5), IDENTITY)
    assert setup.batches("student", setup.train, 4, two).recipes == two
    network = make_network(0)
    torch.testing.assert_close(
        setup.predict(network, np.array([3, 1])).logits,
        predict(network, data.images, setup.loop.runtime, index=np.array([3, 1])).logits,
        rtol=0,
        atol=0,
    )
    assert setup.track().watch.holdout is setup.holdout
