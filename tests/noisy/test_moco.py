"""MoCo: whose keys are negatives, which network makes them, how it follows."""

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from lauter.data import Dataset
from lauter.data.batches import Batch
from lauter.data.views import contrastive_view
from lauter.errors import ConfigError
from lauter.models import create_network
from lauter.noisy.moco import GROUPS, KeyQueue, MomentumEncoder, limit_queue
from lauter.noisy.pretrain import MoCoStage, PretrainConfig, make_pretrain_stage
from lauter.training.progress import Progress
from lauter.training.schedule import OptimizerConfig
from lauter.training.setup import Setup, draw_from

MakeStage = Callable[..., MoCoStage]


@pytest.fixture
def make_stage(make_data: Callable[..., Dataset], make_setup: Callable[..., Setup]) -> MakeStage:
    """A stage on 60 images, 20 in a step, always with the same weights, and the setup that it stands on."""

    def make(setup: Setup | None = None, **changes: Any) -> MoCoStage:
        setup = setup or make_setup(make_data(60))
        settings = {"projection_size": 8, "monitor_every": 0, "optimizer": OptimizerConfig(lr=0.05)}
        config = PretrainConfig(method="moco", **{**settings, **changes})
        view = contrastive_view("objects", 16)
        batches = setup.batches("pretrain", np.arange(60), 20, (view, view))
        with draw_from(0, "moco"):
            network = create_network("resnet8", 3, image_size=16)
            stage = make_pretrain_stage(network, batches, config, setup)
        assert isinstance(stage, MoCoStage)
        return stage

    return make


def take_epoch(stage: MoCoStage, epoch: int = 0) -> list[Batch]:
    """Let the queue see an epoch, without training."""
    stage.begin_epoch(epoch)
    batches = list(stage.batches.epoch(epoch))
    for batch in batches:
        stage.loss(batch)
        stage.after_step()
    return batches


def test_the_queue_holds_the_newest_keys_and_knows_whose_they_are() -> None:
    queue = KeyQueue(5, 2)
    expected: list[tuple[int, list[float]]] = []
    for step, count in enumerate([2, 1, 3, 7, 2]):
        images = [10 * step + number for number in range(count)]
        keys = [[float(step), float(number)] for number in range(count)]
        queue.push(torch.tensor(keys), torch.tensor(images))
        expected = (list(zip(images, keys, strict=True)) + expected)[:5]
        assert queue.images.tolist() == [image for image, _ in expected]
        torch.testing.assert_close(queue.keys, torch.tensor([key for _, key in expected]))
    asked = torch.tensor([41, 3, 30])
    torch.testing.assert_close(
        queue.own(asked), torch.tensor([[int(image) == held for held in queue.images] for image in asked])
    )
    assert queue.own(asked).sum() == 2


def test_an_empty_queue_has_no_key_of_anyone_and_its_state_returns() -> None:
    queue = KeyQueue(4, 3)
    assert queue.keys.shape == (0, 3)
    assert queue.own(torch.arange(2)).shape == (2, 0)
    queue.push(torch.ones(2, 3, requires_grad=True), torch.tensor([5, 6]))
    assert not queue.keys.requires_grad
    other = KeyQueue(4, 3)
    other.load_state(queue.state())
    torch.testing.assert_close(other.state(), queue.state(), rtol=0, atol=0)
    with pytest.raises(ConfigError, match="must hold 1 key or more, not 0"):
        KeyQueue(0, 3)


def test_a_queue_is_no_longer_than_half_of_the_images_and_says_so(
    make_stage: MakeStage, make_data: Callable[..., Dataset], make_setup: Callable[..., Setup]
) -> None:
    assert [limit_queue(64, images) for images in (1, 10, 127, 128, 500)] == [1, 5, 63, 64, 64]
    said = io.StringIO()
    setup = make_setup(make_data(60))
    setup.loop.progress = Progress(console=Console(file=said))
    assert make_stage(setup, queue=30).queue.length == 30
    assert said.getvalue() == ""
    assert make_stage(setup, queue=4096).queue.length == 30
    assert "the queue holds 30 keys, half of the images, and not 4,096" in said.getvalue()


def test_the_loss_is_the_papers_without_keys_of_the_very_image(make_stage: MakeStage) -> None:
    stage = make_stage(temperature=0.3)
    take_epoch(stage)
    batch = next(stage.batches.epoch(1))
    own = stage.queue.own(batch.index)
    assert own.any()
    assert not own.all(1).any()
    queue, held = stage.queue.keys.double().tolist(), stage.queue.images.tolist()
    torch.manual_seed(3)
    found = stage.loss(batch)["info_nce"].detach()
    torch.manual_seed(3)
    keys = stage.follower.make_keys(batch.views[1]).tolist()
    queries = stage.encoder(batch.views[0]).tolist()

    def similarity(first: list[float], second: list[float]) -> float:
        inner = sum(a * b for a, b in zip(first, second, strict=True))
        return math.exp(inner / math.hypot(*first) / math.hypot(*second) / 0.3)

    expected, told_from_itself = [], []
    for image, query, key in zip(batch.index.tolist(), queries, keys, strict=True):
        right = similarity(query, key)
        wrong = [similarity(query, n) for n, other in zip(queue, held, strict=True) if other != image]
        expected.append(-math.log(right / (right + sum(wrong))))
        everyone = right + sum(similarity(query, n) for n in queue)
        told_from_itself.append(-math.log(right / everyone))
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, torch.tensor(told_from_itself), rtol=1e-4, atol=1e-5)


def test_the_first_step_has_nothing_to_be_told_from(make_stage: MakeStage) -> None:
    stage = make_stage()
    stage.begin_epoch(0)
    loss = stage.loss(next(stage.batches.epoch(0)))["info_nce"]
    torch.testing.assert_close(loss.detach(), torch.zeros(20))
    assert loss.requires_grad


def test_the_momentum_network_follows_by_the_formula(make_stage: MakeStage) -> None:
    stage = make_stage(momentum=0.2)
    names = ["projector.0.weight", *list(stage.encoder.state_dict())[:3]]
    expected = {name: stage.encoder.state_dict()[name].double() for name in names}
    generator = torch.Generator().manual_seed(0)
    stage.begin_epoch(0)
    for batch in stage.batches.epoch(0):
        stage.loss(batch)
        with torch.no_grad():
            for parameter in stage.encoder.parameters():
                parameter += torch.randn(parameter.shape, generator=generator)
        stage.after_step()
        for name in names:
            now = stage.encoder.state_dict()[name].double()
            expected[name] = 0.2 * expected[name] + 0.8 * now
    found = {name: stage.follower.shadow.state_dict()[name].double() for name in names}
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_keys_are_made_in_random_groups_of_the_batch(make_stage: MakeStage) -> None:
    stage = make_stage()
    stage.begin_epoch(0)
    views = torch.cat([next(stage.batches.epoch(epoch)).views[1] for epoch in range(5)])  # 100 images
    torch.manual_seed(5)
    found = stage.follower.make_keys(views)
    torch.manual_seed(5)
    order = torch.randperm(100).tolist()
    expected, start = torch.zeros(100, 8), 0
    for group in range(GROUPS):
        rows = order[start : start + 12 + (group < 4)]  # 4 groups of 13, 4 of 12
        start += len(rows)
        expected[rows] = stage.follower.shadow(views[rows])
    torch.testing.assert_close(found, expected)
    assert float((found - stage.follower.shadow(views)).abs().max()) > 0.01  # one batch has other statistics


@pytest.mark.parametrize(("batch", "groups"), [(1, 1), (15, 1), (16, 2), (63, 7), (64, 8), (256, 8)])
def test_keys_stand_where_their_images_stand_and_groups_are_not_too_small(batch: int, groups: int) -> None:
    sizes = []

    class Plain(torch.nn.Linear):
        def forward(self, images: Tensor) -> Tensor:
            sizes.append(len(images))
            return super().forward(images)

    follower, images = MomentumEncoder(Plain(3, 2), 0.9), torch.randn(batch, 3)
    keys = follower.make_keys(images)
    assert len(sizes) == groups
    assert max(sizes) - min(sizes) <= 1
    torch.testing.assert_close(keys, follower.shadow(images))
    assert not keys.requires_grad


def test_only_the_query_is_trained(make_stage: MakeStage) -> None:
    stage = make_stage()
    take_epoch(stage)
    stage.loss(next(stage.batches.epoch(1)))["info_nce"].mean().backward()
    assert all(parameter.grad is None for parameter in stage.follower.shadow.parameters())
    trained = {id(entry) for group in stage.trained[0].optimizer.param_groups for entry in group["params"]}
    network = stage.network
    assert trained == {id(entry) for entry in [*network.backbone.parameters(), *stage.projector.parameters()]}
    assert all(float(entry.grad.abs().sum()) > 0 for entry in stage.projector.parameters())
    assert not any(id(entry) in trained for entry in network.head.parameters())


def test_two_views_of_an_image_come_nearer_than_two_images(
    make_stage: MakeStage, make_data: Callable[..., Dataset], make_setup: Callable[..., Setup]
) -> None:
    def measure(stage: MoCoStage) -> float:
        """How much more alike two views of an image are than views of two images, in standard deviations."""
        views = next(stage.batches.epoch(99)).views
        with torch.no_grad():
            first, second = (torch.nn.functional.normalize(stage.encoder(view)) for view in views)
        alike: Tensor = first @ second.T
        others = alike[~torch.eye(20, dtype=torch.bool)]
        return float((alike.diagonal().mean() - others.mean()) / others.std())

    setup = make_setup(make_data(60))
    stage = make_stage(setup, epochs=8)
    before = measure(stage)
    setup.loop.run_stage(stage)
    assert measure(stage) > before + 0.2
