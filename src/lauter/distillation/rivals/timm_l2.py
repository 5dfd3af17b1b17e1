"""Plain L2 between penultimate features, beside the classification: feature distillation as timm has it."""

from dataclasses import dataclass

from torch import Tensor, nn

from lauter.distillation.method import Lesson, Method, Seen, require_shown
from lauter.distillation.rivals.weights import check_weights
from lauter.losses.mimic import l2
from lauter.models import EmbeddedHead, Output
from lauter.training.setup import draw_from


@dataclass(frozen=True)
class L2Config:
    """Weights of plain L2; the defaults are those of timm's feature distillation.

    Attributes:
        beta: weight of the mean squared distance.
        gamma: weight of the classification term, on labels that are believed.
    """

    beta: float = 1.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_weights("l2", beta=self.beta, gamma=self.gamma)


class L2(Method):
    """Mean squared distance of penultimate features on every image, whether its label is believed or not.

    What it is: the loss of timm's feature distillation task. Where the widths differ, the student's features
    pass through a linear projection that is trained beside the student and left behind; the classifier reads
    the features themselves. A student with an embedded head has its features in the teacher's space already,
    and no projection is added: its classifier then reads the embedding, as in feature mimicking.

    What departs from timm: student and teacher see one picture at one raw scale and each normalises it for
    itself; the label's term is this library's, on believed labels only. From ``MimicConfig(loss="l2")`` it
    departs by the weight, by the projection, and by staying in the teacher's own unit.

    Args:
        config: weights.
        lesson: the widths.

    Source: timm's FeatureDistillationTask, which names no paper.
    """

    by_image = True

    def __init__(self, config: L2Config, lesson: Lesson) -> None:
        super().__init__({"l2": config.beta, "classification": config.gamma})
        student = lesson.student
        self.projection: nn.Module = nn.Identity()
        if not isinstance(student.head, EmbeddedHead) and student.feature_size != lesson.teacher_size:
            with draw_from(lesson.seed, "l2"):
                self.projection = nn.Linear(student.feature_size, lesson.teacher_size)

    def forward(self, student: Output, teacher: Seen, index: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The term ``l2`` [B]."""
        features = require_shown(teacher.features, "features", "L2")
        return {"l2": l2(self.projection(student.features), features)}
