"""SP: images that are similar to the teacher are to be similar to the student."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lauter.distillation.method import Lesson, Method, Part, Seen, require_shown
from lauter.distillation.rivals.weights import check_weights
from lauter.errors import ConfigError, ModelError
from lauter.losses.relations import sp
from lauter.models import Output


@dataclass(frozen=True)
class SPConfig:
    """Weights of SP; the defaults are those of the CRD benchmark.

    Attributes:
        beta: weight of the gap between the two similarity matrices.
        gamma: weight of the classification term, on labels that are believed.
        of: features (penultimate, so that any teacher will do) or maps (the last ones before pooling, as in
            the CRD benchmark; the teacher must show maps).
    """

    beta: float = 3000.0
    gamma: float = 1.0
    of: Literal["features", "maps"] = "features"

    def __post_init__(self) -> None:
        check_weights("sp", beta=self.beta, gamma=self.gamma)
        if self.of not in ("features", "maps"):
            raise ConfigError(f"sp: of must be features or maps, not {self.of!r}")


class SP(Method):
    """Similarity preservation over the batch, on every image whether its label is believed or not.

    Source: Tung and Mori (2019), arXiv 1907.09682; weight of Tian, Krishnan and Isola (2020), arXiv
    1910.10699. Departure: by default the similarity is that of penultimate features, not of the last maps.

    Raises:
        ModelError: maps are compared and the networks do not show them.
    """

    def __init__(self, config: SPConfig, lesson: Lesson) -> None:
        super().__init__({"sp": config.beta, "classification": config.gamma})
        self.needs: frozenset[Part] = frozenset({config.of})
        if config.of == "maps" and not (lesson.student_maps and lesson.teacher_maps):
            raise ModelError("SP of maps needs a student and a teacher that show maps; or take features")

    def forward(self, student: Output, teacher: Seen, index: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The term ``sp``, a scalar of the batch."""
        if "maps" in self.needs:
            wanted = require_shown(teacher.maps[-1] if teacher.maps else None, "maps", "SP")
            return {"sp": sp(student.maps[-1].flatten(1), wanted.flatten(1))}
        return {"sp": sp(student.features, require_shown(teacher.features, "features", "SP"))}
