"""KD++: KD, and features that are long and point to the teacher's centre of their class (the ND loss)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lauter.distillation.method import Lesson, Method, Part, Seen, require_shown
from lauter.distillation.rivals.kd import check_classes
from lauter.distillation.rivals.weights import check_weights, warm_up
from lauter.errors import ConfigError, DataError, ModelError
from lauter.losses.classification import mean_over
from lauter.losses.directions import nd
from lauter.losses.distillation import kd
from lauter.losses.inputs import require_positive
from lauter.models import EmbeddedHead, Output


@dataclass(frozen=True)
class NDConfig:
    """Weights of KD++; the defaults are those of its authors' code for resnet56 -> resnet20.

    Attributes:
        alpha: weight of the divergence from the teacher; the authors take 1 to 4 by the pair of networks.
        beta: weight of norm and direction; the authors take 0.5 to 2.
        gamma: weight of the classification term, on labels that are believed.
        temperature: T of the divergence, without unit.
        warmup: epochs in which the divergence rises to its full weight; the authors' 20 are of 240.
    """

    alpha: float = 1.0
    beta: float = 2.0
    gamma: float = 1.0
    temperature: float = 4.0
    warmup: int = 20

    def __post_init__(self) -> None:
        check_weights("nd", alpha=self.alpha, beta=self.beta, gamma=self.gamma)
        require_positive(self.temperature, "nd: temperature", "4 is usual")
        if self.warmup < 0:
            raise ConfigError(f"nd: warmup must be 0 or more epochs, not {self.warmup}")


class ND(Method):
    """KD on every image, norm and direction on those whose label is believed.

    A class centre is the mean of the teacher's features over the class's believed images, unchanged ones. An
    image without a believed label has no class and gets no ND term, and the term is averaged over the others.
    A class of which no image is believed has no centre; none of its images can ask for it.

    Args:
        config: weights.
        lesson: the teacher's features and the believed labels, for the centres.

    Raises:
        ModelError: student and teacher differ in classes or in the width of their features.
        DataError: no label is believed, or one is beyond the student's classes.

    Source: Wang et al. (2023), arXiv 2305.17007. Departures: the warm-up counts epochs from 1, not from 0;
    what becomes of images without a believed label is ours.
    """

    needs: frozenset[Part] = frozenset({"features", "logits"})
    head = "own"
    centers: Tensor
    has_center: Tensor

    def __init__(self, config: NDConfig, lesson: Lesson) -> None:
        super().__init__({"kd": config.alpha, "nd": config.beta, "classification": config.gamma})
        check_classes("ND", lesson)
        self.temperature, self.warmup = config.temperature, config.warmup
        self.share = warm_up(0, config.warmup)
        student = lesson.student
        head = student.head
        width = head.embedding.out_features if isinstance(head, EmbeddedHead) else student.feature_size
        if width != lesson.teacher_size:
            raise ModelError(
                f"ND compares features of the student, {width} wide, with the teacher's, "
                f"{lesson.teacher_size} wide; take head own or embedded"
            )
        labels = lesson.targets[torch.from_numpy(lesson.rows).to(lesson.targets.device)]
        centers, counts = average_by_class(lesson.teacher_features, labels, student.num_classes)
        self.register_buffer("centers", centers)
        self.register_buffer("has_center", counts > 0)

    def begin_epoch(self, epoch: int) -> None:
        """Set the share of the warm-up."""
        self.share = warm_up(epoch, self.warmup)

    def forward(self, student: Output, teacher: Seen, index: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The terms ``kd`` [B], warm-up included, and ``nd``, its mean over the images of known class."""
        logits = require_shown(teacher.logits, "logits", "ND")
        features = require_shown(teacher.features, "features", "ND")
        classes = targets.clamp(min=0)
        known = (targets >= 0) & self.has_center[classes]
        values = nd(student.features, features, self.centers[classes])
        return {
            "kd": self.share * kd(student.logits, logits, self.temperature),
            "nd": mean_over(values, known),
        }


def average_by_class(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Mean feature of each class over the examples that carry its label.

    Args:
        features: [M, D].
        labels: integers [M], -1 where there is none.
        num_classes: K.

    Returns:
        [K, D] means, zero for a class without example, and [K] counts.

    Raises:
        DataError: no example is labelled, or a label is beyond K.

    Example:
        >>> average_by_class(torch.tensor([[1.0], [3.0], [9.0]]), torch.tensor([0, 0, -1]), 2)
        (tensor([[2.],
                [0.]]), tensor([2, 0]))
    """
    labels = labels.to(features.device)
    labelled = labels >= 0
    if not bool(labelled.any()):
        raise DataError(
            "no image has a believed label, so no class has a centre; take a method without labels"
        )
    given = labels[labelled]
    if int(given.max()) >= num_classes:
        raise DataError(
            f"labels must be below {num_classes}, the student's classes, found {int(given.max())}"
        )
    counts = torch.bincount(given, minlength=num_classes)
    sums = features.new_zeros(num_classes, features.shape[1]).index_add_(0, given, features[labelled])
    return sums / counts.clamp(min=1)[:, None], counts
