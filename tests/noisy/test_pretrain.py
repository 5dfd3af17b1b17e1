"""Self-supervised pretraining: what it touches, what it is told, and how its quality is followed."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from lauter.config import FitConfig
from lauter.data import Dataset
from lauter.data.views import contrastive_view
from lauter.errors import ConfigError, DataError
from lauter.models import Network, count_flops, create_network
from lauter.noisy import monitor
from lauter.noisy.monitor import NeighbourMonitor, find_nearest
from lauter.noisy.pretrain import (
    MoCoStage,
    PretrainConfig,
    SelfSupervisedStage,
    SimCLRStage,
    make_pretrain_stage,
)
from lauter.noisy.recipe import pretrain
from lauter.noisy.robust import RobustConfig
from lauter.noisy.warmup import WarmupConfig
from lauter.pipeline import train_teacher
from lauter.training.progress import Progress, read_history
from lauter.training.schedule import OptimizerConfig
from lauter.training.setup import Setup, draw_from

MakeData = Callable[..., Dataset]
MakeSetup = Callable[..., Setup]
METHODS = ["simclr", "moco"]


def configure(method: str, **changes: Any) -> PretrainConfig:
    settings = {"epochs": 2, "batch_size": 16, "monitor_every": 0, "optimizer": OptimizerConfig(lr=0.05)}
    return PretrainConfig(method=method, **{**settings, **changes})


def make_stage(setup: Setup, config: PretrainConfig) -> SelfSupervisedStage:
    """A stage on all images, always with the same weights."""
    view = contrastive_view("objects", 16)
    rows = np.arange(len(setup.data))
    batches = setup.batches("pretrain", rows, config.batch_size, (view, view))
    with draw_from(0, "pretrain"):
        return make_pretrain_stage(create_network("resnet8", 3, image_size=16), batches, config, setup)


def run(setup: Setup, config: PretrainConfig) -> SelfSupervisedStage:
    stage = make_stage(setup, config)
    setup.loop.run_stage(stage)
    return stage


class Stopper(Progress):
    """Ends a run after some steps, before the checkpoint of the last is written."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def step(self, *arguments: Any, **options: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise TimeoutError


@pytest.mark.parametrize("method", METHODS)
def test_backbone_and_projection_move_and_the_head_does_not(
    method: str, make_data: MakeData, make_setup: MakeSetup
) -> None:
    data = make_data(60)
    config = configure(method)
    fresh, stage = make_stage(make_setup(data), config), run(make_setup(data), config)
    assert type(stage) is {"simclr": SimCLRStage, "moco": MoCoStage}[method]
    for name, value in stage.encoder.named_parameters():
        before = dict(fresh.encoder.named_parameters())[name]
        if ".head." in name:
            torch.testing.assert_close(value, before, rtol=0, atol=0)
        else:
            assert not torch.equal(value, before), name


@pytest.mark.parametrize("method", METHODS)
def test_labels_teach_nothing_and_being_followed_changes_nothing(
    method: str, make_data: MakeData, make_setup: MakeSetup
) -> None:
    data = make_data(60)
    blind, followed = make_setup(data), make_setup(data.with_labels(np.roll(data.labels, 1)))
    first, second = run(blind, configure(method)), run(followed, configure(method, monitor_every=1))
    for name, module in first.modules.items():
        torch.testing.assert_close(module.state_dict(), second.modules[name].state_dict(), rtol=0, atol=0)
    costs = blind.loop.costs[first.name], followed.loop.costs[second.name]
    looked_at = 2 * (len(followed.labelled_train) + int(followed.data.labelled[followed.holdout].sum()))
    assert [cost.images for cost in costs] == [2 * 2 * 60, 2 * 2 * 60 + looked_at]
    flops = count_flops(first.network)
    passes = {"simclr": 3, "moco": 2}[method]
    assert costs[0].flops == pytest.approx(passes * 2 * 2 * 60 * flops)
    assert costs[1].flops - costs[0].flops == pytest.approx(looked_at * flops)


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_pretraining_ends_where_an_uninterrupted_one_does(
    method: str, steps: int, make_data: MakeData, make_setup: MakeSetup, tmp_path: Path
) -> None:
    data, config = make_data(60), configure(method, monitor_every=1)
    whole = run(make_setup(data), config)
    broken = make_setup(data, tmp_path)
    broken.loop.progress, broken.loop.checkpoint_seconds = Stopper(steps), -1.0
    with pytest.raises(TimeoutError):
        run(broken, config)
    for _ in range(2):  # resumed in its middle, and then loaded as complete
        resumed = run(make_setup(data, tmp_path), config)
        for name, module in whole.modules.items():
            found = resumed.modules[name].state_dict()
            torch.testing.assert_close(found, module.state_dict(), rtol=0, atol=0)
        torch.testing.assert_close(resumed.state(), whole.state(), rtol=0, atol=0)


def test_the_monitor_is_the_vote_of_a_plain_loop(make_data: MakeData, make_setup: MakeSetup) -> None:
    data = make_data()
    turned = (data.labels > 0) & (np.arange(120) % 3 == 0)  # class 0 outvotes the others, if it may
    data = data.with_labels(np.where(turned, 0, data.labels))
    setup = make_setup(data)
    stage = make_stage(setup, configure("simclr", monitor_every=1))
    found = stage.end_epoch(0)

    rows = [row for row in setup.train if data.labels[row] >= 0]
    asked = [row for row in setup.holdout if data.labels[row] >= 0]
    features = setup.predict(stage.network).features.double().numpy()
    centre = sum(features[row] for row in rows) / len(rows)
    counts = [sum(1 for row in rows if data.labels[row] == k) + 0.5 for k in range(3)]
    fair: dict[int, list[bool]] = {}
    plain: dict[int, list[bool]] = {}
    for query in asked:
        mine, cosines = features[query] - centre, {}
        for row in rows:
            other = features[row] - centre
            cosines[row] = float(mine @ other) / math.sqrt(float(mine @ mine) * float(other @ other))
        nearest = sorted(rows, key=cosines.__getitem__, reverse=True)[:20]
        votes = [sum(1.0 for row in nearest if data.labels[row] == k) for k in range(3)]
        shares = [vote / count for vote, count in zip(votes, counts, strict=True)]
        given = int(data.labels[query])
        fair.setdefault(given, []).append(shares.index(max(shares)) == given)
        plain.setdefault(given, []).append(votes.index(max(votes)) == given)
    expected, outvoted = (sum(sum(h) / len(h) for h in hits.values()) / len(hits) for hits in (fair, plain))
    assert found == {"agreement_with_given": pytest.approx(expected)}
    assert expected > outvoted
    assert stage.further_images == len(rows) + len(asked)
    assert stage.further_flops == pytest.approx(stage.further_images * count_flops(stage.network))


def test_the_monitor_looks_when_it_is_time_and_its_finding_is_logged(
    make_data: MakeData, make_setup: MakeSetup, tmp_path: Path
) -> None:
    setup = make_setup(make_data(60))
    setup.loop.progress = Progress(tmp_path)
    run(setup, configure("moco", epochs=5, batch_size=60, monitor_every=2))
    logged = [record["metrics"].get("agreement_with_given") for record in read_history(tmp_path)]
    assert [value is None for value in logged] == [True, False, True, False, True]


def test_the_monitor_looks_at_a_bounded_stratified_part(
    make_data: MakeData, make_setup: MakeSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "SAMPLE", 30)
    data = make_data()
    setup = make_setup(data)
    network = create_network("resnet8", 3, image_size=16)
    first, second = (NeighbourMonitor(setup, network, 1) for _ in range(2))
    np.testing.assert_array_equal(first.voters, second.voters)
    assert len(first.voters) == 30
    assert set(first.voters) < set(setup.labelled_train)
    assert set(first.asked) == set(setup.holdout) - {5}  # image 5 has no label
    shares = [np.bincount(data.labels[rows]) / len(rows) for rows in (first.voters, setup.labelled_train)]
    np.testing.assert_allclose(shares[0], shares[1], atol=1 / 30)


def test_without_labels_there_is_nothing_to_be_followed_by(
    make_data: MakeData, make_setup: MakeSetup
) -> None:
    data = make_data(60)
    for part, rows in (("training part", np.arange(60) % 6 != 5), ("hold-out", np.arange(60) % 6 == 5)):
        setup = make_setup(data.with_labels(np.where(rows, -1, data.labels)))
        with pytest.raises(DataError, match=rf"the {part} has none among its \d+ images; set monitor_every"):
            make_stage(setup, configure("simclr", monitor_every=1))
        make_stage(setup, configure("simclr"))
    with pytest.raises(ConfigError, match="looks every 1 epoch or more, not every 0"):
        NeighbourMonitor(make_setup(data), create_network("resnet8", 3, image_size=16), 0)


def test_nearest_are_those_of_a_plain_search() -> None:
    rng = np.random.default_rng(0)
    bank, queries = (rng.normal(3, 1, (count, 4)).astype(np.float32) for count in (40, 7))
    found = find_nearest(queries, bank, 5)
    centre = bank.astype(np.float64).mean(0)
    for row, query in enumerate(queries.astype(np.float64) - centre):
        cosines = []
        for other in bank.astype(np.float64) - centre:
            cosines.append(float(query @ other) / math.sqrt(float(query @ query) * float(other @ other)))
        np.testing.assert_array_equal(found[row], np.argsort(cosines)[::-1][:5])
    with pytest.raises(ConfigError, match="a bank of 40 images has no 41 nearest"):
        find_nearest(queries, bank, 41)


def test_none_has_no_stage_and_leaves_the_network_alone(make_data: MakeData, make_setup: MakeSetup) -> None:
    setup = make_setup(make_data(60))
    with pytest.raises(ConfigError, match="method none has no stage; run none, or take simclr or moco"):
        make_stage(setup, configure("none"))
    network = create_network("resnet8", 3, image_size=16)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pretrain(setup, network, configure("none"))
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)
    assert "pretrain" not in setup.loop.costs


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_pretrained_backbone_goes_the_recipes_way_without_pretraining(
    name: str, make_data: MakeData, make_setup: MakeSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[dict[str, torch.Tensor]] = []
    create = timm.create_model

    def draw(name: str, pretrained: bool, num_classes: int, **options: Any) -> Any:
        assert pretrained
        torch.manual_seed(7)
        model = create(name, pretrained=False, num_classes=num_classes, **options)
        drawn.append({key: value.clone() for key, value in model.state_dict().items()})
        return model

    starts: list[dict[str, torch.Tensor]] = []

    def note(self: Setup, network: Network, *arguments: Any) -> Any:
        starts.append({key: value.clone() for key, value in network.backbone.state_dict().items()})
        return predict(self, network, *arguments)

    predict = Setup.predict
    monkeypatch.setattr(timm, "create_model", draw)
    monkeypatch.setattr(Setup, "predict", note)
    setup = make_setup(make_data(60))
    config = FitConfig(
        teacher=f"timm:{name}",
        teacher_pretrained=True,
        image_size=16,
        warmup=WarmupConfig(epochs=2),
        robust=RobustConfig(epochs=1, batch_size=32),
    )
    stage = train_teacher(setup, config)
    assert "pretrain" not in setup.loop.costs
    # The warm-up's features are those of the pretrained weights, whole and untouched.
    torch.testing.assert_close(
        starts[0], {f"module.{key}": value for key, value in drawn[0].items()}, rtol=0, atol=0
    )
    assert stage.network.num_classes == 3
    assert np.isfinite(stage.judge.beliefs).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "byol"}, "method must be simclr, moco or none, not 'byol'"),
        ({"epochs": 0}, r"epochs >= 1, .* not 0, 256, 128"),
        ({"batch_size": 1}, "batch_size >= 2"),
        ({"temperature": 0.0}, "temperature must be above 0, not 0.0"),
        ({"queue": 0}, "queue must hold 1 key or more, not 0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), not 1.0"),
        ({"monitor_every": -1}, "monitor_every must be 1 epoch or more, or 0 for never, not -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PretrainConfig(**settings)
