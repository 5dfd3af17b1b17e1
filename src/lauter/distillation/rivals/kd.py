"""KD: the student's softened distribution follows the teacher's."""

from dataclasses import dataclass

from torch import Tensor

from lauter.distillation.method import Lesson, Method, Part, Seen, require_shown
from lauter.distillation.rivals.weights import check_weights
from lauter.errors import ModelError
from lauter.losses.distillation import kd
from lauter.losses.inputs import require_positive
from lauter.models import Output


@dataclass(frozen=True)
class KDConfig:
    """Weights and temperature of KD; the defaults are those of the CRD benchmark.

    Attributes:
        beta: weight of the divergence from the teacher.
        gamma: weight of the classification term, on labels that are believed.
        temperature: T, without unit.
    """

    beta: float = 0.9
    gamma: float = 0.1
    temperature: float = 4.0

    def __post_init__(self) -> None:
        check_weights("kd", beta=self.beta, gamma=self.gamma)
        require_positive(self.temperature, "kd: temperature", "4 is usual")


class KD(Method):
    """Soft-logit distillation on every image, whether its label is believed or not.

    Source: Hinton, Vinyals and Dean (2015), arXiv 1503.02531; weights of Tian, Krishnan and Isola (2020),
    arXiv 1910.10699.

    Raises:
        ModelError: teacher and student do not tell the same number of classes apart.
    """

    needs: frozenset[Part] = frozenset({"logits"})
    by_image = True

    def __init__(self, config: KDConfig, lesson: Lesson) -> None:
        super().__init__({"kd": config.beta, "classification": config.gamma})
        check_classes("KD", lesson)
        self.temperature = config.temperature

    def forward(self, student: Output, teacher: Seen, index: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The term ``kd`` [B]."""
        return {"kd": kd(student.logits, require_shown(teacher.logits, "logits", "KD"), self.temperature)}


def check_classes(method: str, lesson: Lesson) -> None:
    """Check that teacher and student tell as many classes apart, so that their logits can be compared.

    Raises:
        ModelError: they do not.
    """
    if lesson.teacher_classes != lesson.student.num_classes:
        raise ModelError(
            f"{method} compares logits, and the teacher tells {lesson.teacher_classes} classes apart, "
            f"the student {lesson.student.num_classes}; use a teacher of the same classes, or a method "
            "on features"
        )
