"""Mimicking: which loss compares the features, with which hashes, and the stage that trains the student.

Formulas and recipes follow Wang, Ge and Wu (2021), arXiv 2011.01424 (LSHFM), where not marked as ours.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from lauter.data.batches import Batch, ImageBatches
from lauter.data.counters import derive_seed
from lauter.errors import ConfigError, ModelError
from lauter.losses import mimic
from lauter.losses.classification import cross_entropy, mean_over
from lauter.losses.geometry import angle, norm_ratio
from lauter.losses.hashing import draw_hash_weights, hash_bias, std_from_classifier, std_from_features
from lauter.models import EmbeddedHead, Network, copy_teacher_head, count_flops
from lauter.training.schedule import OptimizerConfig
from lauter.training.tracking import TrackedStage, Tracker


@dataclass(frozen=True)
class MimicConfig:
    """Distillation by mimicking features: gamma * classification + beta * mimic.

    Attributes:
        loss: l2, lsh, lshl2 or lsh_expected (the closed form of lsh with infinitely many hashes; ours).
        epochs: passes over the images.
        batch_size: images in a step.
        beta: weight of the mimic term (the paper's 6 for images of CIFAR's size, 5 for ImageNet's).
        gamma: weight of the classification term, on kept and corrected labels; 0 trains without a label.
        prior_correction: whether the class frequencies are taken out of the classification term (logit
            adjustment), so that rare classes count as much as frequent ones.
        hashes: N; 0 takes 32 for each teacher feature up to 64 pixels, and 2048 in all above (the paper's).
        bias: zero, mean or median: what the hashes are centred on.
        std: of the hash weights; 0 takes that of the teacher's classifier, or sets it from the features.
        head: own, embedded (a linear embedding, always there where the sizes differ) or teacher (its
            classifier, frozen: no label is learnt from).
        dropped_images: whether images whose label was dropped, and unlabelled ones, still teach by mimicking
            (ours; False mimics on kept and corrected images only).
        optimizer: how the weights move.
        ema_decay: of the weight average that becomes the student; 0 takes the weights themselves.
    """

    loss: Literal["l2", "lsh", "lshl2", "lsh_expected"] = "lshl2"
    epochs: int = 40
    batch_size: int = 128
    beta: float = 6.0
    gamma: float = 1.0
    prior_correction: bool = True
    hashes: int = 0
    bias: Literal["zero", "mean", "median"] = "mean"
    std: float = 0.0
    head: Literal["own", "embedded", "teacher"] = "own"
    dropped_images: bool = True
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=0.1, warmup=0.03))
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.loss not in ("l2", "lsh", "lshl2", "lsh_expected"):
            raise ConfigError(f"mimic loss must be l2, lsh, lshl2 or lsh_expected, not {self.loss!r}")
        if self.bias not in ("zero", "mean", "median"):
            raise ConfigError(f"mimic bias must be zero, mean or median, not {self.bias!r}")
        if self.head not in ("own", "embedded", "teacher"):
            raise ConfigError(f"student head must be own, embedded or teacher, not {self.head!r}")
        if self.loss == "lsh_expected" and self.bias == "median":
            raise ConfigError("lsh_expected is closed for bias zero and mean only; choose one, or loss lsh")
        if self.epochs < 1 or self.batch_size < 1 or self.hashes < 0:
            raise ConfigError(
                f"mimic needs epochs and batch_size of 1 or more and hashes of 0 or more, "
                f"not {self.epochs}, {self.batch_size}, {self.hashes}"
            )
        if not self.beta > 0 or self.gamma < 0 or self.std < 0:
            raise ConfigError(
                f"mimic beta must be above 0, gamma and std 0 or more, "
                f"not {self.beta}, {self.gamma}, {self.std}"
            )
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay must be in [0, 1), not {self.ema_decay}")


class Mimic(nn.Module):
    """The mimic loss with what it keeps fixed: hash weights and bias, or std and centre. Saved with the run.

    Args:
        config: which loss.
        teacher: for the std rule and the feature size.
        features: [M, D] teacher's features of the training images, for bias and std.
        image_size: decides the default number of hashes.
        seed: draws the hashes.
    """

    weight: Tensor
    bias: Tensor
    center: Tensor

    def __init__(
        self, config: MimicConfig, teacher: Network, features: Tensor, image_size: int, seed: int
    ) -> None:
        super().__init__()
        self.loss = config.loss
        self.std = 0.0
        if config.loss == "l2":
            return
        center = features.mean(0) if config.bias == "mean" else torch.zeros(teacher.feature_size)
        self.std = config.std or choose_std(teacher, features, center)
        if config.loss == "lsh_expected":
            self.register_buffer("center", center)
            return
        hashes = config.hashes or (32 * teacher.feature_size if image_size <= 64 else 2048)
        generator = torch.Generator().manual_seed(derive_seed(seed, "hashes"))
        weight = draw_hash_weights(hashes, teacher.feature_size, self.std, generator)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", hash_bias(config.bias, weight, features))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Student's and teacher's features [B, D] -> loss [B]."""
        if self.loss == "l2":
            return mimic.l2(student, teacher)
        if self.loss == "lsh_expected":
            return mimic.lsh_expected(student, teacher, std=self.std, center=self.center)
        function = mimic.lsh if self.loss == "lsh" else mimic.lshl2
        return function(student, teacher, self.weight, self.bias)


def choose_std(teacher: Network, features: Tensor, center: Tensor) -> float:
    """Standard deviation of the hash weights: the teacher's classifier's, or from the features (ours)."""
    if isinstance(teacher.head, nn.Linear):
        return std_from_classifier(teacher.head.weight)
    return std_from_features(features, center=center)


def fit_student_head(student: Network, teacher: Network, head: str) -> None:
    """Give the student the head that mimicking asks for, in place.

    Args:
        student: with its plain head.
        teacher: whose features are mimicked.
        head: own, embedded or teacher (see :class:`MimicConfig`).

    Raises:
        ModelError: teacher and student disagree in classes.
    """
    if head == "teacher":
        student.head = copy_teacher_head(teacher, student.feature_size)
        student.num_classes = teacher.num_classes
        return
    if teacher.num_classes not in (0, student.num_classes):
        raise ModelError(
            f"the teacher tells {teacher.num_classes} classes apart, the data has {student.num_classes}; "
            f"use a teacher of the same classes or one without a classifier"
        )
    if head == "embedded" or student.feature_size != teacher.feature_size:
        student.head = EmbeddedHead(student.feature_size, teacher.feature_size, student.num_classes)


def count_log_prior(labels: Tensor, num_classes: int) -> Tensor:
    """Log class shares [K] of labels [N], -1 left out; each class counts half an image more, so none is 0."""
    counts = torch.bincount(labels[labels >= 0], minlength=num_classes).float() + 0.5
    return (counts / counts.sum()).log()


class MimicStage(TrackedStage):
    """Trains a student to mimic a live teacher, and to classify where labels are believed.

    Args:
        student: with the head of :func:`fit_student_head`.
        teacher: frozen; sees the very pictures that the student sees.
        mimic_loss: the loss with its hashes.
        targets: [N] kept and corrected labels, -1 where there is none to learn.
        batches: the images that mimic.
        config: weights, optimiser.
        tracker: follows the student.
        name: of the stage.
    """

    def __init__(
        self,
        student: Network,
        teacher: Network,
        mimic_loss: Mimic,
        targets: Tensor,
        batches: ImageBatches,
        config: MimicConfig,
        tracker: Tracker,
        name: str = "distill",
    ) -> None:
        teacher.requires_grad_(False)
        super().__init__(
            name,
            config.epochs,
            batches,
            student,
            tracker,
            config.ema_decay,
            modules={"mimic": mimic_loss},
            weights={"classification": config.gamma, "mimic": config.beta},
            flops_per_image=3 * count_flops(student) + count_flops(teacher),
        )
        self.student, self.teacher, self.mimic_loss = student, teacher, mimic_loss
        self.targets = targets.to(batches.device)
        self.log_prior = None
        if config.prior_correction:
            self.log_prior = count_log_prior(self.targets[batches.index], student.num_classes)
        self.gamma = config.gamma
        self._angles: list[Tensor] = []
        self._ratios: list[Tensor] = []
        teacher.to(batches.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        trainable = [parameter for parameter in student.parameters() if parameter.requires_grad]
        self.train_with(trainable, config.optimizer)

    def begin_epoch(self, epoch: int) -> None:
        """The teacher stays in eval mode, whatever else is set to training."""
        super().begin_epoch(epoch)
        self.teacher.eval()
        self._angles.clear()
        self._ratios.clear()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The mimic term on every image; classification where a label is believed."""
        with torch.no_grad():
            wanted, _ = self.teacher.features(batch.images)
        features, _ = self.student.features(batch.images)
        head = self.student.head
        if isinstance(head, EmbeddedHead):
            features = head.embed(features).float()
            logits = head.classify(features)
        else:
            logits = head(features)
        with torch.no_grad():
            self._angles.append(angle(features, wanted))
            self._ratios.append(norm_ratio(features, wanted))
        terms = {"mimic": self.mimic_loss(features, wanted)}
        if self.gamma:
            targets = self.targets[batch.index]
            believed = (targets >= 0).float()
            values = cross_entropy(logits, targets, log_prior=self.log_prior)
            terms["classification"] = mean_over(values, believed)
        return terms

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Follow the student; say how near its features are to the teacher's."""
        metrics = super().end_epoch(epoch)
        levels = torch.tensor([0.1, 0.5, 0.9])
        for name, parts in (("angle", self._angles), ("norm_ratio", self._ratios)):
            seen = torch.cat(parts).float().cpu().quantile(levels).tolist() if parts else []
            metrics |= {
                f"{name}_{level}": value for level, value in zip(("p10", "p50", "p90"), seen, strict=False)
            }
        return metrics
