"""DKD: the label's class against the others, and the others among themselves, weighed apart."""

from dataclasses import dataclass

from torch import Tensor

from lauter.distillation.method import Lesson, Method, Part, Seen, require_shown
from lauter.distillation.rivals.kd import check_classes
from lauter.distillation.rivals.weights import check_weights, warm_up
from lauter.errors import ConfigError
from lauter.losses.distillation import dkd
from lauter.losses.inputs import require_positive
from lauter.models import Output


@dataclass(frozen=True)
class DKDConfig:
    """Weights of DKD; the defaults are those of its authors' code for resnet32x4 -> resnet8x4.

    Attributes:
        alpha: weight of the label's class against the rest; of KD where there is no believed label.
        beta: weight of the divergence among the rest; the authors take 2 to 8 by the pair of networks.
        gamma: weight of the classification term, on labels that are believed.
        temperature: T, without unit.
        warmup: epochs in which the term rises to its full weight; the authors' 20 are of 240.
    """

    alpha: float = 1.0
    beta: float = 8.0
    gamma: float = 1.0
    temperature: float = 4.0
    warmup: int = 20

    def __post_init__(self) -> None:
        check_weights("dkd", alpha=self.alpha, beta=self.beta, gamma=self.gamma)
        require_positive(self.temperature, "dkd: temperature", "4 is usual")
        if self.warmup < 0:
            raise ConfigError(f"dkd: warmup must be 0 or more epochs, not {self.warmup}")


class DKD(Method):
    """Decoupled distillation; images without a believed label get KD at the weight alpha (ours).

    Source: Zhao et al. (2022), arXiv 2203.08679.

    Raises:
        ModelError: teacher and student do not tell the same number of classes apart.
    """

    needs: frozenset[Part] = frozenset({"logits"})
    by_image = True

    def __init__(self, config: DKDConfig, lesson: Lesson) -> None:
        super().__init__({"dkd": 1.0, "classification": config.gamma})
        check_classes("DKD", lesson)
        self.config = config
        self.share = warm_up(0, config.warmup)

    def begin_epoch(self, epoch: int) -> None:
        """Set the share of the warm-up."""
        self.share = warm_up(epoch, self.config.warmup)

    def forward(self, student: Output, teacher: Seen, index: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The term ``dkd`` [B], warm-up included."""
        logits = require_shown(teacher.logits, "logits", "DKD")
        values = dkd(
            student.logits,
            logits,
            targets,
            alpha=self.config.alpha,
            beta=self.config.beta,
            temperature=self.config.temperature,
        )
        return {"dkd": self.share * values}
