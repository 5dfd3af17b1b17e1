"""One loop for all: methods of very different shape train, stop, resume and end bit for bit the same."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lauter.data.batches import Batch, FeatureBatches, ImageBatches
from lauter.data.dataset import ResidentImages
from lauter.data.views import ViewRecipe
from lauter.losses.classification import cross_entropy
from lauter.losses.contrastive import info_nce_queue
from lauter.models import Network, create_network
from lauter.training.averaging import WeightAverage
from lauter.training.loop import Loop
from lauter.training.progress import Progress
from lauter.training.schedule import OptimizerConfig
from lauter.training.stage import Stage

VIEW = ViewRecipe(pad=1, flip=0.5)
SGD = OptimizerConfig(lr=0.05, warmup=0.2, clip=5.0)
ADAMW = OptimizerConfig(kind="adamw", lr=0.01, schedule="constant")


class MocoLike(Stage):
    """A momentum network and a queue of its keys."""

    def __init__(self, batches: ImageBatches, network: Network) -> None:
        self.key_network = copy.deepcopy(network).requires_grad_(False)
        super().__init__("moco", 2, batches, {"network": network, "key_network": self.key_network})
        self.network = network
        self.queue = F.normalize(torch.arange(8.0 * 6).reshape(8, 6).sin())
        self._keys = torch.zeros(0, 6)
        self.train_with(network.backbone.parameters(), SGD)

    def begin_epoch(self, epoch: int) -> None:
        super().begin_epoch(epoch)
        self.key_network.train()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        query, _ = self.network.features(batch.views[0])
        with torch.no_grad():
            self._keys = F.normalize(self.key_network.features(batch.views[1])[0])
        return {"info_nce": info_nce_queue(query, self._keys, self.queue)}

    @torch.no_grad()
    def after_step(self) -> None:
        pairs = zip(self.key_network.parameters(), self.network.parameters(), strict=True)
        for slow, fast in pairs:
            slow.lerp_(fast, 0.1)
        self.queue = torch.cat([self._keys, self.queue])[:8]

    def state(self) -> dict[str, Any]:
        return {"queue": self.queue}

    def load_state(self, state: dict[str, Any]) -> None:
        self.queue = state["queue"]


class CoTeaching(Stage):
    """Two networks with an optimiser each; either learns what the other finds easy."""

    def __init__(self, batches: ImageBatches, first: Network, second: Network, labels: Tensor) -> None:
        super().__init__("coteaching", 2, batches, {"first": first, "second": second}, weights={"second": 2})
        self.first, self.second, self.labels = first, second, labels
        self.train_with(first.parameters(), SGD)
        self.train_with(second.parameters(), ADAMW)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        labels = self.labels[batch.index]
        first = cross_entropy(self.first(batch.images).logits, labels)
        second = cross_entropy(self.second(batch.images).logits, labels)
        easy = len(batch) // 2
        return {
            "first": first[second.detach().argsort()[:easy]],
            "second": second[first.detach().argsort()[:easy]],
        }


class FitNet(Stage):
    """A student's feature map beside a frozen teacher's, through a regressor."""

    def __init__(self, batches: ImageBatches, student: Network, teacher: Network) -> None:
        self.regressor = nn.Conv2d(32, 32, 1)
        nn.init.eye_(self.regressor.weight[:, :, 0, 0].data)
        modules = {
            "student": student,
            "teacher": teacher.requires_grad_(False),
            "regressor": self.regressor,
        }
        super().__init__("fitnet", 2, batches, modules)
        self.student, self.teacher = student, teacher
        self.train_with([*student.parameters(), *self.regressor.parameters()], SGD)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            wanted = self.teacher(batch.images, want_maps=True).maps[1]
        found = self.regressor(self.student(batch.images, want_maps=True).maps[1])
        return {"hint": (found - wanted).square().flatten(1).mean(1)}


class RelationalLike(Stage):
    """Distances between the images of a batch, as a teacher has them: one number for the whole batch."""

    def __init__(self, batches: ImageBatches, student: Network, teacher: Network, labels: Tensor) -> None:
        modules = {"student": student, "teacher": teacher.requires_grad_(False)}
        super().__init__("rkd", 2, batches, modules, weights={"distances": 25.0})
        self.student, self.teacher, self.labels = student, teacher, labels
        self.train_with(student.parameters(), SGD)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            wanted = torch.pdist(self.teacher.features(batch.images)[0])
        output = self.student(batch.images)
        found = torch.pdist(output.features)
        return {
            "distances": F.smooth_l1_loss(found / found.mean(), wanted / wanted.mean()),
            "classification": cross_entropy(output.logits, self.labels[batch.index]),
        }


class MixedBatches(Stage):
    """DivideMix-like: roles are drawn at the start of an epoch, mixing weights in each step."""

    def __init__(self, batches: ImageBatches, network: Network, labels: Tensor) -> None:
        self.average = WeightAverage(network, 0.9)
        super().__init__("mixed", 2, batches, {"network": network, "average": self.average.shadow})
        self.network, self.labels = network, labels
        self.trusted = torch.zeros(len(labels), dtype=torch.bool)
        self.train_with(network.parameters(), ADAMW)

    def begin_epoch(self, epoch: int) -> None:
        super().begin_epoch(epoch)
        self.trusted = torch.rand(len(self.labels)) < 0.7

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        share = torch.rand(())
        partner = torch.randperm(len(batch))
        mixed = share * batch.views[0].float() + (1 - share) * batch.views[1][partner].float()
        logits = self.network(mixed).logits
        labels = self.labels[batch.index]
        trusted = self.trusted[batch.index].float()
        return {
            "own": share * cross_entropy(logits, labels) * trusted,
            "partner": (1 - share) * cross_entropy(logits, labels[partner]) * trusted[partner],
        }

    def after_step(self) -> None:
        self.average.update()

    def state(self) -> dict[str, Any]:
        return {"steps": self.average.steps}

    def load_state(self, state: dict[str, Any]) -> None:
        self.average.steps = state["steps"]


class HeadAlone(Stage):
    """Stored features instead of images, and an end that comes by itself."""

    def __init__(self, batches: FeatureBatches, head: nn.Module, labels: Tensor) -> None:
        super().__init__("head", 9, batches, {"head": head})
        self.head, self.labels = head, labels
        self.train_with(head.parameters(), ADAMW)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"classification": cross_entropy(self.head(batch.images), self.labels[batch.index])}

    def finished(self, epoch: int) -> bool:
        return epoch == 1


class _Killed(Exception):
    """Stands for whatever ends a process."""


class DeadlyProgress(Progress):
    """Ends the run after some steps, before that step's checkpoint is written."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def step(self, *arguments: Any, **options: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise _Killed


MakeStage = Callable[[], Stage]


@pytest.fixture(params=["moco", "coteaching", "fitnet", "rkd", "mixed", "head"])
def make_stage(
    request: pytest.FixtureRequest,
    images: ResidentImages,
    labels: Tensor,
    make_network: Callable[[int], Network],
) -> MakeStage:
    """Make a stage of the named kind, always with the same weights."""

    def resnet(seed: int) -> Network:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return create_network("resnet8", 3, image_size=8)

    def batch(*recipes: ViewRecipe) -> ImageBatches:
        return ImageBatches(images, np.arange(24), 8, recipes, 8, seed=1)

    def make() -> Stage:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            match request.param:
                case "moco":
                    return MocoLike(batch(VIEW, VIEW), make_network(0))
                case "coteaching":
                    return CoTeaching(batch(VIEW), make_network(0), make_network(1), labels)
                case "fitnet":
                    return FitNet(batch(VIEW), resnet(0), resnet(1))
                case "rkd":
                    return RelationalLike(batch(VIEW), make_network(0), make_network(1), labels)
                case "mixed":
                    return MixedBatches(batch(VIEW, VIEW), make_network(0), labels)
                case _:
                    features = torch.linspace(-1, 1, 24 * 6).reshape(24, 6).sin()
                    return HeadAlone(FeatureBatches(features, np.arange(24), 8), nn.Linear(6, 3), labels)

    return make


def snapshot(stage: Stage) -> dict[str, Any]:
    """Everything that must be equal at the end."""
    return {
        "modules": {name: module.state_dict() for name, module in stage.modules.items()},
        "optimizers": [part.optimizer.state_dict()["state"] for part in stage.trained],
        "state": stage.state(),
    }


def assert_same(first: Stage, second: Stage) -> None:
    torch.testing.assert_close(snapshot(first), snapshot(second), rtol=0, atol=0)


def test_a_stage_of_any_shape_trains(make_stage: MakeStage, make_loop: Callable[..., Loop]) -> None:
    before, stage = make_stage(), make_stage()
    make_loop().run([stage])
    for part, untouched in zip(stage.trained, before.trained, strict=True):
        for group, old in zip(part.optimizer.param_groups, untouched.optimizer.param_groups, strict=True):
            moved = [not torch.equal(p, q) for p, q in zip(group["params"], old["params"], strict=True)]
            assert any(moved)
    for name, module in stage.modules.items():
        frozen = not any(parameter.requires_grad for parameter in module.parameters())
        if frozen and name == "teacher":
            torch.testing.assert_close(module.state_dict(), before.modules[name].state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_a_stage_of_any_shape_resumes_bit_for_bit(
    make_stage: MakeStage, make_loop: Callable[..., Loop], steps: int
) -> None:
    whole = make_stage()
    make_loop("whole").run([whole])
    broken = make_stage()
    with pytest.raises(_Killed):
        make_loop("broken", DeadlyProgress(steps), seconds=-1.0).run([broken])
    resumed = make_stage()
    loop = make_loop("broken")
    loop.run([resumed])
    assert_same(resumed, whole)
    again = make_stage()
    make_loop("broken").run([again])  # complete: loaded, not trained
    torch.testing.assert_close(snapshot(again)["modules"], snapshot(whole)["modules"], rtol=0, atol=0)
    torch.testing.assert_close(again.state(), whole.state(), rtol=0, atol=0)


def test_runs_of_another_seed_differ(
    images: ResidentImages,
    labels: Tensor,
    make_network: Callable[[int], Network],
    make_loop: Callable[..., Loop],
) -> None:
    """The dropout and mixing of the steps come from the loop's seed, so the test above can fail."""
    stages = []
    for seed in (5, 6):
        batches = ImageBatches(images, np.arange(24), 8, (VIEW, VIEW), 8, seed=1)
        stage = MixedBatches(batches, make_network(0), labels)
        loop = make_loop()
        loop.seed = seed
        loop.run([stage])
        stages.append(stage)
    with pytest.raises(AssertionError, match=r"not equal|not close"):
        assert_same(*stages)


def test_training_leaves_the_global_random_state_alone(
    make_stage: MakeStage, make_loop: Callable[..., Loop]
) -> None:
    stage = make_stage()
    state = torch.get_rng_state()
    make_loop().run([stage])
    torch.testing.assert_close(torch.get_rng_state(), state, rtol=0, atol=0)
