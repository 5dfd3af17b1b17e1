"""RKD: distances between images, and angles among three of them, as the teacher's features have them."""

from dataclasses import dataclass

from torch import Tensor

from lauter.distillation.method import Lesson, Method, Seen, require_shown
from lauter.distillation.rivals.weights import check_weights
from lauter.losses.relations import rkd_angle, rkd_distance
from lauter.models import Output


@dataclass(frozen=True)
class RKDConfig:
    """Weights of RKD; the defaults are those of the CRD benchmark.

    Attributes:
        distance: weight of the distances.
        angle: weight of the angles; they cost memory and time with the cube of the batch.
        gamma: weight of the classification term, on labels that are believed.
    """

    distance: float = 25.0
    angle: float = 50.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_weights("rkd", distance=self.distance, angle=self.angle, gamma=self.gamma)


class RKD(Method):
    """Relational distillation over the batch, on every image whether its label is believed or not.

    Source: Park et al. (2019), arXiv 1904.05068; weights of Tian, Krishnan and Isola (2020), arXiv
    1910.10699.
    """

    def __init__(self, config: RKDConfig, lesson: Lesson) -> None:
        super().__init__({"distance": config.distance, "angle": config.angle, "classification": config.gamma})

    def forward(self, student: Output, teacher: Seen, index: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The terms ``distance`` and ``angle``, scalars of the batch; one of weight 0 is not computed."""
        features = require_shown(teacher.features, "features", "RKD")
        losses = {"distance": rkd_distance, "angle": rkd_angle}
        return {name: loss(student.features, features) for name, loss in losses.items() if self.weights[name]}
