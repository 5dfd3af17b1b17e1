"""Multi-label views and tracker."""

import numpy as np
import pytest
import torch

from lauter.data.dataset import Dataset, ResidentImages
from lauter.data.views import IDENTITY, ViewRecipe
from lauter.errors import ConfigError
from lauter.evaluation.multilabel import mean_average_precision
from lauter.models import Network
from lauter.training.multilabel import MultiLabelTracker, multilabel_view
from lauter.training.predict import predict
from lauter.training.runtime import Runtime
from lauter.training.tracking import Watch


def test_large_pictures_are_seen_whole() -> None:
    view = multilabel_view("objects", 448)
    assert view == ViewRecipe(flip=0.5, jitter=1.0, brightness=0.3, contrast=0.3, saturation=0.3)
    assert not view.resizes
    assert multilabel_view("objects", 32) == ViewRecipe(pad=4, flip=0.5)
    assert multilabel_view("digits", 32) == ViewRecipe(pad=4)
    assert multilabel_view("digits", 448).flip == 0
    assert multilabel_view("none", 448) == IDENTITY
    with pytest.raises(ConfigError, match="augment must be"):
        multilabel_view("other", 32)


def test_the_tracker_keeps_the_epoch_that_the_hold_out_ranks_best(
    images: ResidentImages, runtime: Runtime, make_network: object
) -> None:
    assert callable(make_network)
    networks: list[Network] = [make_network(seed) for seed in range(4)]
    nothing = np.full(24, -1, dtype=np.int64)
    data = Dataset("noise", images, nothing, ("a", "b", "c"), np.array([str(row) for row in range(24)]))
    targets = (np.random.default_rng(0).random((24, 3)) < 0.4).astype(np.int8)
    targets[5, 1] = -1
    holdout = np.arange(4, 20)
    tracker = MultiLabelTracker(Watch(data, holdout, images, runtime, 8), targets)
    for network in networks:
        tracker.follow(network)
    logits = [predict(network, images, runtime).logits for network in networks]
    scores = [mean_average_precision(entry[holdout].numpy(), targets[holdout]) for entry in logits]
    np.testing.assert_allclose(tracker.scores, scores)
    assert len(set(scores)) > 1
    best = int(np.argmax(scores))
    assert tracker.selected_epoch == best
    torch.testing.assert_close(tracker.selected, dict(networks[best].state_dict()))
    for stored, expected in zip(tracker.test_logits, logits, strict=True):
        torch.testing.assert_close(stored, expected.half())

    again = MultiLabelTracker(tracker.watch, targets)
    again.load_state(tracker.state())
    assert again.scores == tracker.scores
    torch.testing.assert_close(again.holdout_logits, tracker.holdout_logits)
