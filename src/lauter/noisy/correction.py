"""Label correction: which of the labels that are not kept get another one.

Open images are the danger: a classifier is sure of many of them, and relabelling those does harm. So a
label is corrected only where the network's ensemble is confident, the neighbours vote for the same class,
and that has been so for some epochs. The rule is ours.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lauter.data.dataset import Int64s
from lauter.errors import ConfigError
from lauter.noisy.beliefs import Floats
from lauter.noisy.filtering import Assessment


@dataclass(frozen=True)
class CorrectionConfig:
    """When a label that is not kept is corrected.

    Attributes:
        enabled: whether labels are corrected at all.
        confidence: smallest belief in the new class.
        stable_epochs: epochs for which the ensemble must have named the same class.
        first_epoch: epochs of the training before any label is corrected.
    """

    enabled: bool = True
    confidence: float = 0.9
    stable_epochs: int = 5
    first_epoch: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.confidence <= 1:
            raise ConfigError(f"correction confidence must be in (0, 1], not {self.confidence}")
        if self.stable_epochs < 0 or self.first_epoch < 0:
            raise ConfigError(
                f"correction stable_epochs and first_epoch must be 0 or more, "
                f"not {self.stable_epochs} and {self.first_epoch}"
            )


def propose_labels(beliefs: Floats, prior: Floats) -> tuple[Int64s, Floats]:
    """The class each image most likely has, and how much it is believed.

    Classes are compared with the prior taken out, so that frequent classes do not swallow rare ones.

    Args:
        beliefs: [N, K] under the training prior.
        prior: [K].

    Returns:
        Classes [N] and beliefs [N] in 0..1 (with the prior taken out).
    """
    balanced = beliefs / prior
    balanced /= balanced.sum(1, keepdims=True)
    best = balanced.argmax(1)
    return np.asarray(best, dtype=np.int64), np.asarray(balanced[np.arange(len(best)), best])


def correct_labels(
    assessment: Assessment,
    suggested: Int64s,
    confidence: Floats,
    agreed: NDArray[np.bool_],
    stable_for: Int64s,
    config: CorrectionConfig,
) -> NDArray[np.bool_]:
    """Which images take their suggested label.

    Args:
        assessment: what the filter says.
        suggested: [N] classes of :func:`propose_labels`.
        confidence: [N] beliefs in them.
        agreed: [N] whether ensemble and neighbours name the same class.
        stable_for: [N] epochs for which the ensemble has named this class.
        config: thresholds.

    Returns:
        [N] mask; never an image whose label is kept.
    """
    if not config.enabled:
        return np.zeros(len(suggested), dtype=bool)
    sure = (confidence >= config.confidence) & agreed & (stable_for >= config.stable_epochs)
    return np.asarray(sure & ~assessment.kept)
