"""PKT: each image has the same neighbours, with the same probabilities, for student and teacher."""

from dataclasses import dataclass

from torch import Tensor

from lauter.distillation.method import Lesson, Method, Seen, require_shown
from lauter.distillation.rivals.weights import check_weights
from lauter.losses.relations import pkt
from lauter.models import Output


@dataclass(frozen=True)
class PKTConfig:
    """Weights of PKT; the defaults are those of the CRD benchmark.

    Attributes:
        beta: weight of the divergence between the neighbourhoods; the loss falls as 1 / batch_size, and the
            benchmark's batches are of 64.
        gamma: weight of the classification term, on labels that are believed.
    """

    beta: float = 30000.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_weights("pkt", beta=self.beta, gamma=self.gamma)


class PKT(Method):
    """Probabilistic transfer over the batch, on every image whether its label is believed or not.

    Source: Passalis and Tefas (2018), arXiv 1803.10837; weight of Tian, Krishnan and Isola (2020), arXiv
    1910.10699.
    """

    def __init__(self, config: PKTConfig, lesson: Lesson) -> None:
        super().__init__({"pkt": config.beta, "classification": config.gamma})

    def forward(self, student: Output, teacher: Seen, index: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The term ``pkt``, a scalar of the batch."""
        return {"pkt": pkt(student.features, require_shown(teacher.features, "features", "PKT"))}
