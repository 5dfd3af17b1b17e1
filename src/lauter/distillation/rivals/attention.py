"""Attention transfer: a student that looks where its teacher looks, at every depth."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lauter.distillation.method import Lesson, Method, Part, Seen, require_shown
from lauter.distillation.rivals.weights import check_weights
from lauter.losses.maps import attention
from lauter.models import Output


@dataclass(frozen=True)
class AttentionTransferConfig:
    """Attention transfer: gamma * classification + beta * attention.

    Attributes:
        beta: weight of the attention term, the sum over all maps (the CRD benchmark's 1000).
        gamma: weight of the classification term, on labels that are believed (the benchmark's 1).
    """

    beta: float = 1000.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_weights("attention", beta=self.beta, gamma=self.gamma)


class AttentionTransfer(Method):
    """Attention maps of all depths, compared pair by pair; nothing is trained beside the student.

    Args:
        config: weights.
        lesson: the maps' shapes.

    Raises:
        ModelError: student and teacher do not show as many maps.

    Source: Zagoruyko and Komodakis (2017), arXiv 1612.03928, in the form of the CRD benchmark (arXiv
    1910.10699). That benchmark leaves out VGG's first stage, as it does the stem of others; here every stage
    counts.
    """

    needs: frozenset[Part] = frozenset({"maps"})
    by_image = True

    def __init__(self, config: AttentionTransferConfig, lesson: Lesson) -> None:
        super().__init__({"attention": config.beta, "classification": config.gamma})
        lesson.require_maps("attention transfer")

    def forward(self, student: Output, teacher: Seen, index: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The term ``attention`` [B]: the sum over all depths."""
        require_shown(teacher.maps[0] if teacher.maps else None, "maps", "attention transfer")
        depths = [attention(*pair) for pair in zip(student.maps, teacher.maps, strict=True)]
        return {"attention": torch.stack(depths).sum(0)}
