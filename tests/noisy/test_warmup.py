"""Warm-up: what each kind trains, when it ends, what it says at the end."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lauter.data import Dataset
from lauter.errors import ConfigError
from lauter.models import Network, count_flops, create_network
from lauter.noisy import warmup
from lauter.noisy.pretrain import PretrainConfig
from lauter.noisy.recipe import NoisyConfig, train_robustly
from lauter.noisy.robust import RobustConfig
from lauter.noisy.warmup import WarmupConfig, WholeConfig, run_warmup
from lauter.training import tracking
from lauter.training.progress import Progress, read_history
from lauter.training.schedule import OptimizerConfig
from lauter.training.setup import Setup
from lauter.training.stage import Stage

MakeData = Callable[..., Dataset]
MakeSetup = Callable[..., Setup]
WHOLE = WholeConfig(epochs=2, batch_size=16, optimizer=OptimizerConfig(lr=0.05))


def draw_network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create_network("resnet8", 3, image_size=16)


def tilt(data: Dataset) -> Dataset:
    """The same images with every other label of class 1 turned to 0, so that classes differ in size."""
    turned = (data.labels == 1) & (np.arange(len(data)) % 2 == 0)
    return data.with_labels(np.where(turned, 0, data.labels))


def copy_weights(network: Network) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def count_shares(data: Dataset, setup: Setup) -> list[float]:
    """Class shares of the given labels of the training part, half an image more for each."""
    counts = [sum(1 for row in setup.train if data.labels[row] == k) + 0.5 for k in range(3)]
    return [count / sum(counts) for count in counts]


class Stopper(Progress):
    """Ends a run after some steps, before the checkpoint of the last is written."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def step(self, *arguments: Any, **options: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise TimeoutError


@pytest.mark.parametrize("prior_correction", [True, False])
@pytest.mark.parametrize("kind", ["head", "whole"])
def test_probabilities_are_those_under_the_training_prior(
    kind: str, prior_correction: bool, make_data: MakeData, make_setup: MakeSetup
) -> None:
    data, network = tilt(make_data(60)), draw_network()
    setup = make_setup(data)
    config = WarmupConfig(kind=kind, epochs=3, prior_correction=prior_correction, whole=WHOLE)
    features, probabilities = run_warmup(setup, network, config)
    seen = setup.predict(network)
    torch.testing.assert_close(features, seen.features)
    shares = count_shares(data, setup) if prior_correction else [1.0, 1.0, 1.0]
    for row, logits in enumerate(seen.logits.double().tolist()):
        odds = [share * math.exp(logit) for share, logit in zip(shares, logits, strict=True)]
        np.testing.assert_allclose(probabilities[row], [odd / sum(odds) for odd in odds], rtol=1e-4)


def test_the_head_moves_alone_and_the_whole_network_moves_whole(
    make_data: MakeData, make_setup: MakeSetup
) -> None:
    data, before = make_data(60), copy_weights(draw_network())
    for kind in ("head", "whole"):
        network = draw_network()
        run_warmup(make_setup(data), network, WarmupConfig(kind=kind, epochs=2, whole=WHOLE))
        for name, value in network.named_parameters():
            moved = not torch.equal(value, before[name])
            assert moved == (kind == "whole" or name.startswith("head.")), name


@pytest.mark.parametrize("kind", ["head", "whole"])
def test_prior_correction_is_in_the_loss(kind: str, make_data: MakeData, make_setup: MakeSetup) -> None:
    """The terms of the first step, against cross-entropy written out."""
    data = tilt(make_data(60))
    for corrected in (True, False):
        setup = make_setup(data)
        config = WarmupConfig(kind=kind, prior_correction=corrected, batch_size=16, whole=WHOLE)
        stages: list[Stage] = []
        setup.loop.run_stage = stages.append  # type: ignore[method-assign]
        network = draw_network()
        # With nothing trained, whole has no epoch to choose from; with patience 0 it asks for none.
        run_warmup(setup, network, dataclasses.replace(config, patience=0))
        (stage,) = stages
        stage.begin_epoch(0)
        batch = next(iter(stage.batches.epoch(0)))
        found = float(stage.loss(batch)["classification"].detach())
        shown = network.head(batch.images) if kind == "head" else network(batch.images).logits
        shares = count_shares(data, setup) if corrected else [1.0, 1.0, 1.0]
        losses = []
        for row, logits in zip(batch.index.tolist(), shown.detach().double().tolist(), strict=True):
            odds = [share * math.exp(logit) for share, logit in zip(shares, logits, strict=True)]
            losses.append(-math.log(odds[data.labels[row]] / sum(odds)))
        assert found == pytest.approx(sum(losses) / len(losses), rel=1e-4)


SCORES = [0.5, 0.9, 0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(("patience", "epochs", "kept"), [(0, 6, 5), (1, 3, 1), (3, 5, 1), (9, 6, 1)])
@pytest.mark.parametrize("kind", ["head", "whole"])
def test_it_ends_by_fixed_epochs_or_by_the_holdout(
    kind: str,
    patience: int,
    epochs: int,
    kept: int,
    make_data: MakeData,
    make_setup: MakeSetup,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    network, seen = draw_network(), []

    def follow_the_script(*arguments: Any) -> float:
        seen.append(copy_weights(network))
        return SCORES[len(seen) - 1]

    monkeypatch.setattr(warmup if kind == "head" else tracking, "balanced_agreement", follow_the_script)
    setup = make_setup(make_data(60))
    setup.loop.progress = Progress(tmp_path)
    whole = dataclasses.replace(WHOLE, epochs=6, batch_size=60)
    run_warmup(setup, network, WarmupConfig(kind=kind, epochs=6, patience=patience, whole=whole))
    logged = [record["metrics"]["agreement_with_given"] for record in read_history(tmp_path)]
    assert logged == SCORES[:epochs]
    last = kept if kind == "whole" else epochs - 1  # a head stays as it was last
    torch.testing.assert_close(dict(network.state_dict()), seen[last], rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["head", "whole"])
def test_the_holdout_teaches_nothing_and_the_test_set_is_not_looked_at(
    kind: str, make_data: MakeData, make_setup: MakeSetup
) -> None:
    class Sealed:
        def __len__(self) -> int:
            raise AssertionError("the test images were looked at")

        uniform = property(__len__)

    data = make_data(60)
    other = data.labels.copy()
    holdout = np.arange(60) % 6 == 5
    other[holdout] = np.roll(other[holdout], 1)
    weights = []
    for labels in (data.labels, other):
        setup = dataclasses.replace(make_setup(data.with_labels(labels)), test=Sealed())
        network = draw_network()
        run_warmup(setup, network, WarmupConfig(kind=kind, epochs=3, patience=0, whole=WHOLE))
        weights.append(copy_weights(network))
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


def test_none_believes_in_the_class_shares(make_data: MakeData, make_setup: MakeSetup) -> None:
    data, network = tilt(make_data(60)), draw_network()
    setup, before = make_setup(data), copy_weights(network)
    features, probabilities = run_warmup(setup, network, WarmupConfig(kind="none"))
    np.testing.assert_allclose(probabilities, [count_shares(data, setup)] * 60)
    torch.testing.assert_close(features, setup.predict(network).features)
    torch.testing.assert_close(copy_weights(network), before, rtol=0, atol=0)
    assert "warmup" not in setup.loop.costs


def test_the_whole_networks_cost_counts_the_holdout_too(make_data: MakeData, make_setup: MakeSetup) -> None:
    setup, network = make_setup(make_data(60)), draw_network()
    run_warmup(setup, network, WarmupConfig(kind="whole", whole=WHOLE), name="first.warmup")
    cost, flops = setup.loop.costs["first.warmup"], count_flops(network)
    trained, scored = 2 * len(setup.labelled_train), 2 * len(setup.holdout)
    assert cost.images == trained + scored
    assert cost.flops == pytest.approx((3 * trained + scored) * flops)


def test_the_average_takes_the_networks_place(make_data: MakeData, make_setup: MakeSetup) -> None:
    setup, network = make_setup(make_data(60)), draw_network()
    stages: list[Any] = []
    run_stage = setup.loop.run_stage

    def note(stage: Stage) -> None:
        run_stage(stage)
        stages.append((stage, copy_weights(network)))

    setup.loop.run_stage = note  # type: ignore[method-assign]
    averaged = dataclasses.replace(WHOLE, ema_decay=0.5)
    run_warmup(setup, network, WarmupConfig(kind="whole", patience=0, whole=averaged))
    ((stage, trained),) = stages
    torch.testing.assert_close(copy_weights(network), copy_weights(stage.average.shadow), rtol=0, atol=0)
    assert not torch.equal(network.head.weight, trained["head.weight"])


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("kind", ["head", "whole"])
def test_a_stopped_warmup_ends_where_an_uninterrupted_one_does(
    kind: str, steps: int, make_data: MakeData, make_setup: MakeSetup, tmp_path: Path
) -> None:
    data = make_data(60)
    config = WarmupConfig(kind=kind, epochs=3, batch_size=16, whole=WHOLE)
    whole = draw_network()
    expected = run_warmup(make_setup(data), whole, config)
    broken = make_setup(data, tmp_path)
    broken.loop.progress, broken.loop.checkpoint_seconds = Stopper(steps), -1.0
    with pytest.raises(TimeoutError):
        run_warmup(broken, draw_network(), config)
    for _ in range(2):  # resumed in its middle, and then loaded as complete
        network = draw_network()
        features, probabilities = run_warmup(make_setup(data, tmp_path), network, config)
        torch.testing.assert_close(copy_weights(network), copy_weights(whole), rtol=0, atol=0)
        torch.testing.assert_close(features, expected[0], rtol=0, atol=0)
        np.testing.assert_array_equal(probabilities, expected[1])


@pytest.mark.parametrize("kind", ["whole", "none"])
def test_the_recipe_goes_on_from_every_kind(kind: str, make_data: MakeData, make_setup: MakeSetup) -> None:
    config = NoisyConfig(
        PretrainConfig(method="none"),
        WarmupConfig(kind=kind, whole=WHOLE),
        RobustConfig(epochs=1, batch_size=32),
    )
    stage = train_robustly(make_setup(make_data(60)), draw_network(), config)
    assert np.isfinite(stage.judge.beliefs).all()
    assert len(stage.tracker.scores) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "half"}, "kind must be head, whole or none, not 'half'"),
        ({"epochs": 0}, "epochs and batch_size of 1 or more and a patience of 0 or more, not 0, 256, 15"),
        ({"batch_size": 0}, "not 60, 0, 15"),
        ({"patience": -1}, "not 60, 256, -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WarmupConfig(**settings)
