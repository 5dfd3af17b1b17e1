"""SRD: softmax regression representation, the student's features judged by the teacher's classifier."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from lauter.distillation.method import Lesson, Method, Seen, require_shown
from lauter.distillation.rivals.weights import check_weights
from lauter.losses.inputs import no_autocast
from lauter.losses.mimic import l2
from lauter.models import Output


@dataclass(frozen=True)
class SRDConfig:
    """Softmax regression: gamma * classification + alpha * features + beta * regression.

    Attributes:
        alpha: weight of the squared distance of the features (the authors' code: 1).
        beta: weight of the squared distance of what the teacher's classifier says of them (the code's 1).
        gamma: weight of the classification term, on labels that are believed (the code's 1).
    """

    alpha: float = 1.0
    beta: float = 1.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_weights("srd", alpha=self.alpha, beta=self.beta, gamma=self.gamma)


class SRD(Method):
    r"""Features near the teacher's, and nearest where its classifier looks.

    .. math:: \ell^{\mathrm{features}}_b = \frac1D \lVert s_b - t_b \rVert^2, \qquad
              \ell^{\mathrm{regression}}_b = \frac1K \lVert W (s_b - t_b) \rVert^2

    W are the weights of the teacher's classifier, frozen and saved with the run; its bias falls out of the
    difference, and so the teacher has to show features alone.

    Args:
        config: weights.
        lesson: the teacher's classifier.

    Raises:
        ModelError: the teacher has no linear classifier.

    Source: Yang, Martinez, Bulat and Tzimiropoulos, "Knowledge distillation via softmax regression
    representation learning", ICLR 2021 (OpenReview ZzwDy_wiWv), in the form of their public code. Departure:
    the student's features come to the teacher's width by the linear embedding of its own head, which folds
    into its classifier, and not by a connector of convolution, batch normalisation and ReLU that is left
    behind.
    """

    head = "embedded"
    by_image = True
    classifier: Tensor

    def __init__(self, config: SRDConfig, lesson: Lesson) -> None:
        super().__init__(
            {"features": config.alpha, "regression": config.beta, "classification": config.gamma}
        )
        self.register_buffer("classifier", lesson.require_classifier("SRD").weight.detach().float().clone())

    def forward(self, student: Output, teacher: Seen, index: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The terms ``features`` [B] and ``regression`` [B]."""
        wanted = require_shown(teacher.features, "features", "SRD")
        features = l2(student.features, wanted)
        with no_autocast(wanted):
            said, expected = (F.linear(part.float(), self.classifier) for part in (student.features, wanted))
        return {"features": features, "regression": l2(said, expected)}
