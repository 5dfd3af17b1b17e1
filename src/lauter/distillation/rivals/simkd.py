"""SimKD: the teacher's classifier reused as it is, and features that fit it; no label is learnt from."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lauter.distillation.method import Lesson, Method, Seen, require_shown
from lauter.errors import ModelError
from lauter.losses.inputs import require_positive
from lauter.losses.mimic import l2
from lauter.models import EmbeddedHead, Output


@dataclass(frozen=True)
class SimKDConfig:
    """Feature alignment alone: beta * alignment. There is no classification term to weigh.

    Attributes:
        beta: weight of the alignment (the paper's 1); being the only term, it acts as a factor of lr.
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self.beta, "simkd: beta", "1 is the paper's")


class SimKD(Method):
    """Mean squared distance of the student's projected features from the teacher's, under its classifier.

    The student carries the teacher's classifier, frozen, behind a trained linear projector: the head
    ``teacher`` (:func:`lauter.models.copy_teacher_head`). Labels are not used.

    Args:
        config: weight.
        lesson: the teacher's classifier, and the student that has taken it over.

    Raises:
        ModelError: the teacher has no linear classifier, or the student's head does not hold it, frozen.

    Source: Chen et al. (2022), arXiv 2203.14001. Departure, and one to keep in mind when comparing: their
    projector is three convolutions on the last feature map, with batch normalisations and ReLUs, which the
    student keeps and pays for; here it is one linear layer on the pooled features, which folds into the
    classifier and costs the student nothing, but cannot do as much. So the distance is that of pooled
    features and not of maps.
    """

    head = "teacher"
    by_image = True

    def __init__(self, config: SimKDConfig, lesson: Lesson) -> None:
        super().__init__({"alignment": config.beta, "classification": 0.0})
        wanted = lesson.require_classifier("SimKD")
        head = lesson.student.head
        if not isinstance(head, EmbeddedHead) or not holds_frozen(head.classifier, wanted):
            raise ModelError(
                "SimKD classifies with the teacher's own classifier, and the student's head does not hold it "
                "frozen; take head teacher"
            )

    def forward(self, student: Output, teacher: Seen, index: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The term ``alignment`` [B]."""
        return {"alignment": l2(student.features, require_shown(teacher.features, "features", "SimKD"))}


def holds_frozen(classifier: nn.Module, wanted: nn.Linear) -> bool:
    """Whether a classifier is another one's equal and takes no gradient."""
    if any(parameter.requires_grad for parameter in classifier.parameters()):
        return False
    found, expected = (
        {name: value.cpu() for name, value in module.state_dict().items()} for module in (classifier, wanted)
    )
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in expected
    )
