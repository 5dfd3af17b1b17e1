"""Label correction: which of the labels that are not kept get another one, and what is taught then.

Open images are the danger: a classifier is sure of many of them, and relabelling those does harm. So a
label is corrected only where the beliefs are confident, the neighbours vote for the same class,
and that has been so for some epochs. The rule is ours.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lauter.data.dataset import UNLABELLED, Int64s
from lauter.errors import ConfigError
from lauter.noisy.beliefs import Floats
from lauter.noisy.filtering import Assessment
from lauter.noisy.thresholds import choose_confidence
from lauter.noisy.top_beliefs import Beliefs, find_best


@dataclass(frozen=True)
class CorrectionConfig:
    """When a label that is not kept is corrected.

    Attributes:
        enabled: whether labels are corrected at all.
        confidence: smallest belief in the new class.
        precision: where above 0, confidence is not used but set anew in every epoch, so that this share of
            the corrected labels is expected to be right.
        targets: what a corrected image is taught: hard (the new class) or soft (the belief in every class).
        stable_epochs: epochs for which the beliefs must have named the same class.
        first_epoch: epochs of the training before any label is corrected.
        first_share: the same as a share of the training; the later of the two counts.
    """

    enabled: bool = True
    confidence: float = 0.9
    precision: float = 0.0
    targets: Literal["hard", "soft"] = "hard"
    stable_epochs: int = 5
    first_epoch: int = 10
    first_share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.confidence <= 1:
            raise ConfigError(f"correction confidence must be in (0, 1], not {self.confidence}")
        if not 0 <= self.precision <= 1:
            raise ConfigError(
                f"correction precision must be in [0, 1], not {self.precision}; 0 leaves it to confidence"
            )
        if self.targets not in ("hard", "soft"):
            raise ConfigError(f"correction targets must be hard or soft, not {self.targets!r}")
        if self.stable_epochs < 0 or self.first_epoch < 0:
            raise ConfigError(
                f"correction stable_epochs and first_epoch must be 0 or more, "
                f"not {self.stable_epochs} and {self.first_epoch}"
            )
        if not 0 <= self.first_share <= 1:
            raise ConfigError(
                f"correction first_share must be a share of the training in [0, 1], not {self.first_share}"
            )

    def wait(self, epochs: int) -> int:
        """Epochs of a training of so many that end before any label is corrected.

        >>> CorrectionConfig(first_epoch=10, first_share=0.4).wait(40)
        16
        """
        return max(self.first_epoch, round(self.first_share * epochs))


def propose_labels(beliefs: Beliefs, prior: Floats) -> tuple[Int64s, Floats]:
    """The class each image most likely has, and how much it is believed.

    Classes are compared with the prior taken out, so that frequent classes do not swallow rare ones.

    Args:
        beliefs: [N, K] under the training prior, or the largest of them.
        prior: [K].

    Returns:
        Classes [N] and beliefs [N] in 0..1 (with the prior taken out).
    """
    return find_best(beliefs, prior)


def correct_labels(
    assessment: Assessment,
    suggested: Int64s,
    confidence: Floats,
    agreed: NDArray[np.bool_],
    stable_for: Int64s,
    config: CorrectionConfig,
    *,
    expected: Floats | None = None,
    among: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """Which images take their suggested label.

    Args:
        assessment: what the filter says.
        suggested: [N] classes of :func:`propose_labels`.
        confidence: [N] beliefs in them.
        agreed: [N] whether ensemble and neighbours name the same class.
        stable_for: [N] epochs for which the beliefs have named this class.
        config: thresholds.
        expected: [N] probabilities of ``expect_right``; only ``config.precision`` looks at them.
        among: [N] images by which ``config.precision`` sets the threshold, such as those that are trained on:
            the labels of others then have no say in it. All images where None.

    Returns:
        [N] mask; never an image whose label is kept.

    Raises:
        ConfigError: a precision is asked for, and ``expected`` is not given.
    """
    if not config.enabled:
        return np.zeros(len(suggested), dtype=bool)
    eligible = agreed & (stable_for >= config.stable_epochs) & ~assessment.kept
    threshold = config.confidence
    if config.precision:
        if expected is None:
            raise ConfigError(
                f"correction precision {config.precision} needs to know how probably each "
                "suggestion is right: pass expected, as expect_right gives it, or set precision to 0 and "
                "choose a confidence"
            )
        chosen = eligible if among is None else eligible & among
        threshold = choose_confidence(confidence, expected, chosen, config.precision)
    return np.asarray(eligible & (confidence >= threshold))


def make_soft_targets(labels: Int64s, corrected: NDArray[np.bool_], beliefs: Floats) -> Floats:
    r"""Soft targets: a label that was corrected is taught as the belief behind it.

    .. math:: q_{ik} = \begin{cases} p_{ik} & \text{corrected} \\ [\tilde y_i = k] & \text{else} \end{cases}

    The prior stays in, other than for the suggestion: prior-corrected cross-entropy compares a target with a
    prediction under the training prior, and takes it out of what the network learns.

    Args:
        labels: [N] given labels, -1 where there is none.
        corrected: [N] mask of :func:`correct_labels`.
        beliefs: [N, K] under the training prior.

    Returns:
        [N, K]; rows sum to 1, and to 0 for images with neither a label nor a correction.

    Source: ours.
    """
    targets = np.zeros(beliefs.shape)
    plain = np.flatnonzero((labels != UNLABELLED) & ~corrected)
    targets[plain, labels[plain]] = 1
    targets[corrected] = beliefs[corrected]
    return targets
