"""DIST: correlations between the distributions of student and teacher, by image and by class."""

from dataclasses import dataclass

from torch import Tensor

from lauter.distillation.method import Lesson, Method, Part, Seen, require_shown
from lauter.distillation.rivals.kd import check_classes
from lauter.distillation.rivals.weights import check_weights
from lauter.losses.distillation import dist
from lauter.losses.inputs import require_positive
from lauter.models import Output


@dataclass(frozen=True)
class DISTConfig:
    """Weights of DIST; the defaults are those usual on CIFAR-100 in public code.

    Its authors' code for ImageNet takes inter 1, intra 1 and the temperature 1.

    Attributes:
        inter: weight of the correlation over the classes of an image.
        intra: weight of the correlation over the images of a batch, class by class.
        gamma: weight of the classification term, on labels that are believed.
        temperature: T, without unit; both terms are multiplied by T^2.
    """

    inter: float = 2.0
    intra: float = 2.0
    gamma: float = 1.0
    temperature: float = 4.0

    def __post_init__(self) -> None:
        check_weights("dist", inter=self.inter, intra=self.intra, gamma=self.gamma)
        require_positive(self.temperature, "dist: temperature", "4 is usual on small images, 1 on large ones")


class DIST(Method):
    """Correlation with the teacher's distributions on every image, whether its label is believed or not.

    Source: Huang et al. (2022), arXiv 2205.10536.

    Raises:
        ModelError: teacher and student do not tell the same number of classes apart.
    """

    needs: frozenset[Part] = frozenset({"logits"})

    def __init__(self, config: DISTConfig, lesson: Lesson) -> None:
        super().__init__({"inter": config.inter, "intra": config.intra, "classification": config.gamma})
        check_classes("DIST", lesson)
        self.temperature = config.temperature

    def forward(self, student: Output, teacher: Seen, index: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The terms ``inter`` [B] and ``intra``, a scalar."""
        logits = require_shown(teacher.logits, "logits", "DIST")
        inter, intra = dist(student.logits, logits, self.temperature)
        return {"inter": inter, "intra": intra}
