"""Students of images with several labels: binary cross-entropy, mimicking beside it, in two stages.

The recipe is that of Wang, Ge and Wu (2021), arXiv 2011.01424 (LSHFM), for VOC and COCO: the embedding alone
with the mimic loss first, then everything with gamma * binary cross-entropy + beta * mimic.
"""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from lauter.data.batches import Batch, ImageBatches
from lauter.data.dataset import Int64s
from lauter.distillation.method import Method, Seen
from lauter.distillation.mimic import Mimic, MimicConfig
from lauter.distillation.recipe import prepare_lesson
from lauter.distillation.stage import DistillStage
from lauter.distillation.teacher import LiveTeacher
from lauter.errors import ConfigError
from lauter.losses.classification import mean_over
from lauter.losses.multilabel import binary_cross_entropy
from lauter.models import Network, Output, count_flops
from lauter.training.multilabel import MultiLabelSetup
from lauter.training.setup import draw_from
from lauter.training.tracking import TrackedStage, Tracker


def presence_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy over the images of which something is known; 0 where there is none.

    Args:
        logits: [B, K], gradient flows.
        targets: [B, K]: 1 present, 0 absent, -1 unknown.

    Returns:
        A scalar, float32 at least.
    """
    return mean_over(binary_cross_entropy(logits, targets), (targets >= 0).any(1))


class MimicWithLabels(Method):
    """The mimic loss on every image, and binary cross-entropy on the labels that are known.

    Args:
        mimic: the loss with its hashes and its weight.
        gamma: weight of the cross-entropy; 0 learns without a label.
    """

    def __init__(self, mimic: Mimic, gamma: float) -> None:
        super().__init__({"mimic": mimic.weights["mimic"], "presence": gamma})
        self.mimic = mimic
        self.needs = mimic.needs

    def forward(self, student: Output, teacher: Seen, index: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The terms ``mimic`` [B] and ``presence``, a scalar."""
        terms = self.mimic(student, teacher, index, targets)
        if self.weights["presence"]:
            terms["presence"] = presence_loss(student.logits, targets)
        return dict(terms)


class PresenceStage(TrackedStage):
    """Binary cross-entropy alone: how a teacher is made, and what a student would be without one.

    Args:
        network: what is trained.
        targets: [N, K] labels to learn: 1 present, 0 absent, -1 unknown.
        batches: the images.
        config: lengths, optimiser, average; what it says of mimicking is not used.
        tracker: follows the network.
        name: of the stage.
    """

    shares: ClassVar[bool] = True

    def __init__(
        self,
        network: Network,
        targets: Tensor,
        batches: ImageBatches,
        config: MimicConfig,
        tracker: Tracker,
        name: str = "plain",
    ) -> None:
        super().__init__(
            name,
            config.epochs,
            batches,
            network,
            tracker,
            config.ema_decay,
            flops_per_image=3 * count_flops(network),
        )
        self.targets = targets.to(batches.device)
        self.train_with([entry for entry in network.parameters() if entry.requires_grad], config.optimizer)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The one term ``presence``."""
        (logits,) = batch.gather(self.network(batch.images).logits)
        return {"presence": presence_loss(logits, self.targets[batch.index])}


def check_multilabel(config: MimicConfig) -> None:
    """Check that a config asks for nothing that there is for images with one class each alone.

    Raises:
        ConfigError: it does.
    """
    if config.source.kind != "live":
        raise ConfigError(
            f"the teacher's source is {config.source.kind!r}, but with several labels per image the teacher "
            "runs along; take live"
        )
    if config.correct_only:
        raise ConfigError(
            "correct_only asks whether the teacher's best class is the label, and images with several labels "
            "have no such; leave it off"
        )


def distill_multilabel(
    student: Network,
    teacher: Network,
    setup: MultiLabelSetup,
    rows: Int64s,
    config: MimicConfig,
    tracker: Tracker,
) -> DistillStage:
    """Train a student on what a live teacher shows: its embedding alone first, then everything.

    Args:
        student: with its final head; trained in place.
        teacher: frozen.
        setup: images, targets, hold-out, loop.
        rows: which images teach.
        config: the mimic loss, lengths, optimiser; ``prior_correction`` is of single classes and not used.
        tracker: follows the student through the second stage.

    Returns:
        The finished second stage.

    Raises:
        ConfigError: ``embedding_epochs`` and the student's head has no embedding, or see
            :func:`check_multilabel`.
    """
    check_multilabel(config)
    config = replace(config, prior_correction=False)
    targets = torch.from_numpy(setup.targets)
    lesson = prepare_lesson(student, teacher, setup, targets, rows)
    with draw_from(lesson.seed, "method of distill"):
        mimic = Mimic(config, lesson)
    live = LiveTeacher(teacher, setup.loop.runtime.device)
    batches = setup.batches("student", rows, config.batch_size)
    if config.embedding_epochs:
        watcher = replace(setup, test=None).track()  # nothing of this stage is kept that could be tested
        first = DistillStage(
            student,
            live,
            mimic,
            targets,
            batches,
            config,
            watcher,
            "distill-embedding",
            embedding_only=True,
        )
        setup.loop.run_stage(first)
    method = MimicWithLabels(mimic, config.gamma)
    stage = DistillStage(student, live, method, targets, batches, config, tracker)
    setup.loop.run_stage(stage)
    return stage


def train_plainly(
    network: Network, setup: MultiLabelSetup, rows: Int64s, config: MimicConfig, tracker: Tracker
) -> PresenceStage:
    """Train a network in place on labels alone, in the same views and for as long as a student.

    Args:
        network: trained in place.
        setup: images, targets, hold-out, loop.
        rows: which images teach.
        config: lengths, optimiser, average.
        tracker: follows the network.

    Returns:
        The finished stage.
    """
    batches = setup.batches("student", rows, config.batch_size)
    stage = PresenceStage(network, torch.from_numpy(setup.targets), batches, config, tracker)
    setup.loop.run_stage(stage)
    return stage
