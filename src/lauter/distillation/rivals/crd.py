"""CRD: contrastive representation distillation, with a memory of every image that teaches."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lauter.distillation.method import Lesson, Method, Seen, require_shown
from lauter.distillation.rivals.weights import check_weights
from lauter.errors import ConfigError, DataError
from lauter.losses.crd import memory_contrast, move_memory
from lauter.losses.geometry import split_features
from lauter.losses.inputs import no_autocast, require_positive
from lauter.models import EmbeddedHead, Output
from lauter.training.setup import draw_from


@dataclass(frozen=True)
class CRDConfig:
    """Contrastive distillation: gamma * classification + beta * contrast.

    Attributes:
        beta: weight of the contrastive term (the CRD benchmark's 0.8).
        gamma: weight of the classification term, on labels that are believed (the benchmark's 1).
        size: width of the space in which student and teacher are compared (the benchmark's 128).
        negatives: K, other images that each image is told from in a step (the benchmark's 16,384).
        temperature: of the similarities (the benchmark's 0.07).
        momentum: share of what is remembered of an image that stays when it is seen again (the benchmark's
            0.5).
    """

    beta: float = 0.8
    gamma: float = 1.0
    size: int = 128
    negatives: int = 16_384
    temperature: float = 0.07
    momentum: float = 0.5

    def __post_init__(self) -> None:
        check_weights("crd", beta=self.beta, gamma=self.gamma)
        require_positive(self.temperature, "crd: temperature", "0.07 is usual")
        if self.size < 1 or self.negatives < 1:
            raise ConfigError(
                f"crd: size and negatives must be 1 or more, not {self.size} and {self.negatives}"
            )
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"crd: momentum must be in [0, 1), not {self.momentum}")


class CRD(Method):
    """The student's vector of an image is told from what is remembered of the teacher's, and the other way.

    Negatives of an image are drawn uniformly, with replacement, among the images that teach, without those
    that share its label. An image without a label shares it with none: its negatives are all others, and it
    is a negative of all others, wrongly so for those of its true class.

    A step costs O(B N d) operations and a [B, N] of memory for either side, and hardly depends on K: about
    0.1 s on one core for B = 64, N = 50,000, d = 128 and K = 16,384. The two memories take 8 N d bytes, and
    as much in every checkpoint.

    Args:
        config: weights, sizes, temperature.
        lesson: which images teach, with which labels; the features' widths.

    Raises:
        DataError: the labels are not one per image, or all images that teach share one.

    Source: Tian, Krishnan and Isola (2020), arXiv 1910.10699, with the defaults of its benchmark. Departures:
    the benchmark draws without replacement where it can; what becomes of missing labels is ours; where the
    student's head embeds its features, they are taken after that linear embedding.
    """

    student_memory: Tensor
    teacher_memory: Tensor
    log_means: Tensor
    ranked: Tensor
    first: Tensor
    shared: Tensor

    def __init__(self, config: CRDConfig, lesson: Lesson) -> None:
        super().__init__({"contrast": config.beta, "classification": config.gamma})
        self.config = config
        student = lesson.student
        embedded = isinstance(student.head, EmbeddedHead)
        with draw_from(lesson.seed, "crd"):
            self.embed_student = nn.Linear(
                lesson.teacher_size if embedded else student.feature_size, config.size
            )
            self.embed_teacher = nn.Linear(lesson.teacher_size, config.size)
            for name in ("student_memory", "teacher_memory"):
                # Uniform, with an expected squared length of 1, as in the benchmark.
                bound = (3 / config.size) ** 0.5
                memory = torch.empty(lesson.num_images, config.size).uniform_(-bound, bound)
                self.register_buffer(name, memory)
        self.register_buffer("log_means", torch.full((2,), float("nan")))
        ranked, first, shared = rank_by_label(lesson)
        self.register_buffer("ranked", ranked, persistent=False)
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("shared", shared, persistent=False)

    def forward(self, student: Output, teacher: Seen, index: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The term ``contrast`` [B], both sides together; in training mode the memory moves."""
        shown = require_shown(teacher.features, "features", "CRD").detach()
        with no_autocast(shown):
            learner = split_features(self.embed_student(student.features.float()))[1]
            master = split_features(self.embed_teacher(shown.float()))[1]
        rows = torch.cat([index[:, None], self.draw_negatives(index)], dim=1)
        temperature = self.config.temperature
        learnt, first_mean = memory_contrast(
            learner, self.teacher_memory, rows, self.log_means[0], temperature=temperature
        )
        taught, second_mean = memory_contrast(
            master, self.student_memory, rows, self.log_means[1], temperature=temperature
        )
        if self.training:
            self.log_means.copy_(torch.stack([first_mean, second_mean]))
            for memory, vectors in ((self.student_memory, learner), (self.teacher_memory, master)):
                memory[index] = move_memory(memory[index], vectors, momentum=self.config.momentum)
        return {"contrast": learnt + taught}

    def draw_negatives(self, index: Tensor) -> Tensor:
        """Draw rows that teach with another label from torch's generator.

        Args:
            index: [B] rows of the data set.

        Returns:
            int64 [B, K] rows of the data set.
        """
        first, shared = self.first[index, None], self.shared[index, None]
        others = len(self.ranked) - shared
        # torch knows one bound for all rows alone; of 2^62 draws the remainder is uniform to 13 digits.
        draws = torch.randint(2**62, (len(index), self.config.negatives), device=index.device) % others
        # The rows that share the label stand side by side: a draw beyond their beginning skips them.
        return self.ranked[torch.where(draws < first, draws, draws + shared)]


def rank_by_label(lesson: Lesson) -> tuple[Tensor, Tensor, Tensor]:
    """Line up the rows that teach by label, and find for every row which of them share its label.

    Args:
        lesson: rows and labels.

    Returns:
        The rows that teach [M], labels side by side; and for each of the N rows of the data set where in that
        line those that share its label begin, and how many they are: for a row without a label itself alone.

    Raises:
        DataError: the labels are not one per image, or all images that teach share one.
    """
    targets = lesson.targets.detach().cpu().contiguous()
    if targets.ndim != 1:
        raise DataError(
            f"CRD needs one label per image to tell negatives by, not labels {list(targets.shape)}; "
            "take a method without negatives"
        )
    rows = torch.from_numpy(np.array(lesson.rows, dtype=np.int64))
    ranked = rows[targets[rows].argsort(stable=True)]
    labels = targets[ranked]
    first = torch.searchsorted(labels, targets)
    shared = torch.searchsorted(labels, targets, right=True) - first
    alone = targets[ranked] < 0
    first[targets < 0], shared[targets < 0] = 0, 0
    first[ranked[alone]], shared[ranked[alone]] = alone.nonzero()[:, 0], 1
    if not len(rows) or bool((shared[rows] >= len(rows)).any()):
        raise DataError(
            f"CRD tells images of different labels apart, and the {len(rows)} images that teach share one; "
            "take a method without negatives, or more classes"
        )
    return ranked, first, shared
