"""Plain training: no teacher, the baseline of every rival."""

from dataclasses import dataclass

from torch import Tensor

from lauter.distillation.method import Lesson, Method, Part, Seen
from lauter.distillation.rivals.weights import check_weights
from lauter.models import Output


@dataclass(frozen=True)
class NoTeacherConfig:
    """Cross-entropy on believed labels and nothing else.

    Attributes:
        gamma: weight of the classification term.
    """

    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_weights("none", gamma=self.gamma)


class NoTeacher(Method):
    """Learns nothing from the teacher, whatever it shows. Images without a believed label teach nothing."""

    needs: frozenset[Part] = frozenset()
    by_image = True

    def __init__(self, config: NoTeacherConfig, lesson: Lesson) -> None:
        super().__init__({"classification": config.gamma})

    def forward(self, student: Output, teacher: Seen, index: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """No term: the stage adds the classification."""
        return {}
